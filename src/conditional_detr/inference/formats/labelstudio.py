"""Write tasks of Label Studio with predictions, which it shows as pre-annotations, and the labeling configuration for them."""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from conditional_detr.data.images import is_url
from conditional_detr.data.writers.voc import xml_labels
from conditional_detr.inference.formats import MODEL, DetectedImage, DetectionSet

NAME, XML, PER_IMAGE = "labelstudio", True, False
_FROM, _TO, _KEY = "label", "image", "image"  # names of the controls and of the data in the configuration


def write(path: Path, found: DetectionSet) -> None:
    path.mkdir(parents=True)
    labels = xml_labels(found.categories, MODEL)  # as the configuration, which is XML, can name them
    (path / "config.xml").write_text(_configuration(labels), encoding="utf-8")
    with (path / "tasks.json").open("w", encoding="utf-8") as file:
        file.write("[")
        for i, image in enumerate(found.images()):
            file.write(f"{',' if i else ''}\n{json.dumps(_task(image, labels, found.model))}")
        file.write("]\n")


def _configuration(labels: list[str]) -> str:
    view = Element("View")
    SubElement(view, "Image", name=_TO, value=f"${_KEY}")
    control = SubElement(view, "RectangleLabels", name=_FROM, toName=_TO)
    for label in labels:
        SubElement(control, "Label", value=label)
    ElementTree.indent(view)
    return f"{ElementTree.tostring(view, encoding='unicode')}\n"


def _task(image: DetectedImage, labels: list[str], model: str) -> dict[str, Any]:
    results = [
        {
            "id": f"{image.number}-{i}",
            "type": "rectanglelabels",
            "from_name": _FROM,
            "to_name": _TO,
            "original_width": image.width,
            "original_height": image.height,
            "image_rotation": 0,
            "score": each.score,
            "value": {
                "x": 100 * x0 / image.width,
                "y": 100 * y0 / image.height,
                "width": 100 * (x1 - x0) / image.width,
                "height": 100 * (y1 - y0) / image.height,
                "rotation": 0,
                "rectanglelabels": [labels[each.row]],
            },
        }
        for i, (each, (x0, y0, x1, y1)) in enumerate(image.clipped(), 1)
    ]
    score = max((each.score for each in image.objects), default=0.0)
    prediction = {"model_version": model, "score": score, "result": results}
    return {"data": {_KEY: _address(image.file_name)}, "predictions": [prediction]}


def _address(file_name: str) -> str:
    """Return the address of an image for Label Studio: a URL, or a local file below the root folder "/" of its local storage."""
    if is_url(file_name):
        return file_name
    path = os.path.abspath(file_name).replace(os.sep, "/").lstrip("/")
    return f"/data/local-files/?d={quote(os.fsencode(path))}"
