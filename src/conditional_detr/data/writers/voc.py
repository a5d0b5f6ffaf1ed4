"""Write the Pascal VOC layout: an XML file per image, lists of the splits, and labels.txt with the names of the categories."""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from conditional_detr.data.annotations import Annotations
from conditional_detr.data.writers import ImageNames, Splits
from conditional_detr.errors import DataError
from conditional_detr.record import Categories

IMAGES = "JPEGImages"
FLAT = True

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class VOCObject(NamedTuple):
    """An object. box: x, y, width, height in pixels. difficult: left out of training and AP by most tools."""

    label: str
    box: tuple[float, float, float, float]
    difficult: bool = False


def write(out: Path, splits: Splits, names: ImageNames) -> list[str]:
    (out / "Annotations").mkdir()
    lists = out / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    first = next(iter(splits.values()))
    labels, notes = _labels(first)
    (out / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    decimals = 0
    for split, data in splits.items():
        stems = [Path(name).stem for name in names[split]]
        (lists / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
        for i, (stem, name) in enumerate(zip(stems, names[split], strict=True)):
            rows = data.objects(i)
            columns = (data.labels[rows].tolist(), data.boxes[rows].tolist(), data.crowd[rows].tolist())
            objects = [VOCObject(labels[label], box, crowd) for label, box, crowd in zip(*columns, strict=True)]
            height, width = data.sizes[i].tolist()
            tree = annotation(name, (height, width), objects)
            ElementTree.indent(tree)
            text = ElementTree.tostring(tree, encoding="unicode")
            (out / "Annotations" / f"{stem}.xml").write_text(f"{text}\n", encoding="utf-8")
        decimals += int((data.boxes % 1 != 0).any(axis=1).sum())
    if first.categories.ids != tuple(range(1, len(first.categories) + 1)):
        ids = first.categories.ids
        notes.append(f"Pascal VOC knows categories by name alone: ids {ids[0]} to {ids[-1]} are not kept")
    if crowds := sum(int(data.crowd.sum()) for data in splits.values()):
        notes.append(f"Pascal VOC has no crowds: {crowds} are marked as difficult, which is treated alike here")
    if decimals:
        notes.append(f"{decimals} boxes have decimals, which are kept; some tools expect whole pixels")
    return notes


def _labels(data: Annotations) -> tuple[list[str], list[str]]:
    """Return names of the categories as XML and a list of lines can hold them, and sentences about those that changed."""
    labels = xml_labels(data.categories, data.source, "Pascal VOC")
    changed = [pair for pair in zip(data.categories.names, labels, strict=True) if pair[0] != pair[1]]
    if not changed:
        return labels, []
    example = f"{changed[0][0]!r} as {changed[0][1]!r}"
    return labels, [f"{len(changed)} names of categories are changed for XML, such as {example}"]


def xml_labels(categories: Categories, source: object, form: str = "this format") -> list[str]:
    """Return names of categories as XML and a list of lines can hold them. source, form: what has them and what gets them, for messages.

    Raises ``DataError`` when they are no longer different from each other, or when one is empty.
    """
    labels = [as_xml_text(name) for name in categories.names]
    label, count = Counter(labels).most_common(1)[0]
    ids = " and ".join(str(id_) for id_, each in zip(categories.ids, labels, strict=True) if each == label)
    if count > 1:
        raise DataError(
            f"{source}: categories {ids} are both named {label!r} in {form}, which knows them by name alone; give every "
            f"category its own name",
            argument="names",
        )
    if "" in labels:
        raise DataError(
            f"{source}: category {categories.ids[labels.index('')]} has no name, and {form} knows categories by name alone; "
            f"give it one",
            argument="names",
        )
    return labels


def as_xml_text(text: str) -> str:
    """Return text on one line, without characters that XML can't hold."""
    return _NOT_XML.sub("_", " ".join(text.split()))


def annotation(filename: str, size: tuple[int, int], objects: Iterable[VOCObject]) -> Element:
    """Return the annotation of an image. size: height and width in pixels."""
    root = Element("annotation")
    SubElement(root, "folder").text = IMAGES
    SubElement(root, "filename").text = filename
    element = SubElement(root, "size")
    height, width = size
    for tag, value in (("width", width), ("height", height), ("depth", 3)):
        SubElement(element, tag).text = str(value)
    SubElement(root, "segmented").text = "0"
    for found in objects:
        each = SubElement(root, "object")
        SubElement(each, "name").text = found.label
        for tag, text in (("pose", "Unspecified"), ("truncated", "0"), ("difficult", str(int(found.difficult)))):
            SubElement(each, tag).text = text
        box = SubElement(each, "bndbox")
        x, y, w, h = found.box
        corners: dict[str, float] = {"xmin": x, "ymin": y, "xmax": x + w, "ymax": y + h}
        for tag, corner in corners.items():
            SubElement(box, tag).text = str(int(corner)) if corner.is_integer() else repr(corner)
    return root
