"""Measuring: what ``convnext bench`` runs."""
