"""Label photos with an exported file and ONNX Runtime alone: python onnx_ten_lines.py model.onnx photo.jpg …"""

import io
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageCms, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
card = json.loads(session.get_modelmeta().custom_metadata_map["convnext"])
recipe, export, names = card["recipe"], card["export"], card["labels"]["names"]
for path in sys.argv[2:]:
    photo = ImageOps.exif_transpose(Image.open(path))
    if profile := photo.info.get("icc_profile"):  # the colours that its numbers stand for
        photo = ImageCms.profileToProfile(photo, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB")
    x = photo.convert("RGB")
    if not export["photos"]:  # the preprocessing is not in the file
        edges = [recipe["resize_to"][0] * edge // min(x.size) for edge in x.size]
        resized = x.resize(edges, Image.Resampling[recipe["interpolation"].upper()])
        left, top = (round((edge - size) / 2) for edge, size in zip(edges, recipe["size"][::-1], strict=True))
        pixels = np.asarray(resized)[top : top + recipe["size"][0], left : left + recipe["size"][1]]
        x = ((pixels * recipe["rescale"] - recipe["mean"]) / recipe["std"]).transpose(2, 0, 1).astype(np.float32)
    batch = np.stack([np.asarray(x)] * (export["batch"] or 1))
    found = session.run([export["output"]], {session.get_inputs()[0].name: batch})[0]
    print(path, names[found[0].argmax()], sep="\t")
