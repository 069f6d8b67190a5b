"""Label photos with an exported file and ONNX Runtime alone: python onnx_ten_lines.py model.onnx photo.jpg …"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
card = json.loads(session.get_modelmeta().custom_metadata_map["convnext"])
recipe, names = card["recipe"], card["labels"]["names"]
for path in sys.argv[2:]:
    photo = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    edges = [recipe["resize_to"][0] * edge // min(photo.size) for edge in photo.size]
    photo = photo.resize(edges, Image.Resampling[recipe["interpolation"].upper()])
    left, top = (round((edge - size) / 2) for edge, size in zip(edges, recipe["size"][::-1], strict=True))
    pixels = np.asarray(photo)[top : top + recipe["size"][0], left : left + recipe["size"][1]]
    x = (pixels * recipe["rescale"] - recipe["mean"]) / recipe["std"]
    logits = session.run(["logits"], {"pixel_values": x.transpose(2, 0, 1)[None].astype(np.float32)})[0]
    print(path, names[logits[0].argmax()], sep="\t")
