"""``convnext train``: a network from labelled photos."""
