"""``from_pretrained``, ``save_pretrained`` and the image processor, as documented on the model's page."""
