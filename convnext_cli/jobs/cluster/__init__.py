"""``convnext label --cluster``: the same rows for photos that one machine would be at for too long, by Ray Data."""
