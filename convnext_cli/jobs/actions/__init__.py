"""Sorting photos into folders by label, and undoing it."""
