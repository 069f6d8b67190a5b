"""``from_pretrained``, ``save_pretrained`` and the image processor, as on the model's documentation page."""
