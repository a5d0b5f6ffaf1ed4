"""Find objects with an exported ONNX file, without PyTorch. Needs: pip install onnxruntime numpy pillow

Usage: python predict.py model.onnx IMAGE [SCORE]
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["conditional_detr"])
size, categories = about["record"]["input_size"], about["record"]["categories"]
image = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB")
width, height = image.size

first, second = size["sides"]
if size["rule"] == "stretch":  # to exactly (height, width)
    new = first, second
elif size["rule"] == "fit":  # to the largest size within (height, width)
    scale = min(first / height, second / width)
    new = max(int(height * scale), 1), max(int(width * scale), 1)
else:  # the shorter side to the first length, the longer one to at most the second
    shorter, longer = min(height, width), max(height, width)
    exact = first if longer / shorter * first <= second else second * shorter / longer
    short = round(exact)
    long = int((short if size["rule"] == "published" else exact) * longer / shorter)
    new = (short, long) if height <= width else (long, short)
    new = (height, width) if shorter == short else new

pixels = np.asarray(image.resize((new[1], new[0]), Image.Resampling.BILINEAR), dtype=np.float32) / 255
pixels = (pixels - np.array([0.485, 0.456, 0.406], np.float32)) / np.array([0.229, 0.224, 0.225], np.float32)
padded = size["padded"] or (0, 0)  # at the right and bottom
rows, columns = max(padded[0], new[0]), max(padded[1], new[1])
batch = about["batch"] or 1
inputs = {
    "pixels": np.zeros((batch, 3, rows, columns), np.float32),
    "padding_mask": np.zeros((batch, rows, columns), bool),
}
inputs["pixels"][0, :, : new[0], : new[1]] = pixels.transpose(2, 0, 1)
if size["boxes"] != "padded":
    inputs["padding_mask"][0, new[0] :] = inputs["padding_mask"][0, :, new[1] :] = True
found = session.run(["scores", "category_ids", "corners"], inputs)
scores, ids, corners = (np.asarray(each)[0] for each in found)
frame = (height, width) if size["boxes"] == "image" else (height * rows / new[0], width * columns / new[1])
names = dict(zip(categories["ids"], categories["names"], strict=True))
threshold = float(sys.argv[3] if len(sys.argv) > 3 else 0.5)
if scores.max() < threshold:
    print(f"no object has a score from {threshold}; the best score is {scores.max():.3f}", file=sys.stderr)
for score, category_id, corner in zip(scores, ids.tolist(), corners, strict=True):
    if score >= threshold:
        box = " ".join(f"{value:.1f}" for value in corner * np.array([*frame[::-1], *frame[::-1]], np.float32))
        print(f"{names[category_id]} {score:.3f} {box}")
