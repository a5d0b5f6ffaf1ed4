"""Write annotations of CVAT, as its format "CVAT for images 1.1" has them."""

from pathlib import Path
from typing import TextIO
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from conditional_detr.data.writers.voc import as_xml_text, xml_labels
from conditional_detr.inference.formats import MODEL, DetectedImage, DetectionSet

NAME, XML, PER_IMAGE = "cvat.xml", True, False
_SCORE = "score"  # attribute of every label


def write(path: Path, found: DetectionSet) -> None:
    labels = xml_labels(found.categories, MODEL)
    with path.open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n')
        version = Element("version")
        version.text = "1.1"
        _write(file, version)
        _write(file, _meta(labels))
        for number, image in enumerate(found.images()):  # CVAT counts images from 0
            _write(file, _image(number, image, labels))
        file.write("</annotations>\n")


def _write(file: TextIO, element: Element) -> None:
    ElementTree.indent(element, level=1)
    file.write(f"  {ElementTree.tostring(element, encoding='unicode')}\n")


def _meta(labels: list[str]) -> Element:
    meta = Element("meta")
    listed = SubElement(SubElement(meta, "task"), "labels")
    for name in labels:
        label = SubElement(listed, "label")
        SubElement(label, "name").text = name
        attribute = SubElement(SubElement(label, "attributes"), "attribute")
        texts = {"name": _SCORE, "mutable": "False", "input_type": "text", "default_value": "", "values": ""}
        for tag, text in texts.items():
            SubElement(attribute, tag).text = text
    return meta


def _image(number: int, image: DetectedImage, labels: list[str]) -> Element:
    size = {"width": str(image.width), "height": str(image.height)}
    element = Element("image", {"id": str(number), "name": as_xml_text(image.place), **size})
    for each, corners in image.clipped():
        names = ("xtl", "ytl", "xbr", "ybr")
        places = {key: f"{value:.2f}" for key, value in zip(names, corners, strict=True)}
        kind = {"label": labels[each.row], "source": "auto", "occluded": "0"}
        box = SubElement(element, "box", {**kind, **places, "z_order": "0"})
        SubElement(box, "attribute", name=_SCORE).text = f"{each.score:.6g}"
    return element
