"""Write Pascal VOC: an XML file per image, with the score of each object as ``confidence``, and labels.txt."""

from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import SubElement

from conditional_detr.data.writers.voc import VOCObject, annotation, as_xml_text, xml_labels
from conditional_detr.inference.formats import MODEL, DetectedImage, DetectionSet

NAME, XML, PER_IMAGE = "voc", True, True


def write(path: Path, found: DetectionSet) -> None:
    annotations = path / "Annotations"
    annotations.mkdir(parents=True)
    labels = xml_labels(found.categories, MODEL)
    (path / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    for image in found.images():
        (annotations / f"{image.stem}.xml").write_text(_document(image, labels), encoding="utf-8")


def _document(image: DetectedImage, labels: list[str]) -> str:
    scores: list[float] = []
    objects: list[VOCObject] = []
    for each, (x0, y0, x1, y1) in image.clipped():
        scores.append(each.score)
        objects.append(VOCObject(labels[each.row], (x0, y0, x1 - x0, y1 - y0)))
    name = (
        f"{image.stem}{Path(image.place).suffix}"  # as the XML file; a number tells it from another image of that name
    )
    tree = annotation(as_xml_text(name), (image.height, image.width), objects)
    for element, score in zip(tree.iterfind("object"), scores, strict=True):
        SubElement(element, "confidence").text = f"{score:.6g}"
    ElementTree.indent(tree)
    return f"{ElementTree.tostring(tree, encoding='unicode')}\n"
