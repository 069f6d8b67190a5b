"""``convnext label``: the durable job over a folder, and the uses of its rows."""
