"""``convnext label``: the durable job over a folder, and what is done with its rows afterwards."""
