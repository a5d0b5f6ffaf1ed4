"""Parse the XML of Pascal VOC annotations. Files of strangers are safe to parse: no DTD, no entities, limited depth."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from conditional_detr.data.layouts.numbers import number, whole_number
from conditional_detr.data.layouts.text_files import read_bytes
from conditional_detr.errors import DataError

Corners = tuple[float, float, float, float]

_DEEPEST = 30  # levels of elements; Pascal VOC has 5
_LARGEST_SIDE = 2**31 - 1
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
# Encodings that Python knows and expat does not, because a character can take several bytes.
_EAST_ASIAN = re.compile(
    rb"<\?xml[^>]{,100}encoding=.(gb2312|gbk|gb18030|big5|shift_jis|euc-jp|euc-kr)\W", re.IGNORECASE
)


class XMLObject(NamedTuple):
    """An object. corners: x0, y0, x1, y1 as written, in any order. outline: True if they are those around a polygon or rotated box."""

    name: str
    corners: Corners
    difficult: bool
    outline: bool


class XMLAnnotation(NamedTuple):
    """Annotation of an image. filename: as written, may be empty or wrong. size: (height, width), 0 where there is no valid one."""

    filename: str
    size: tuple[int, int]
    objects: list[XMLObject]


def read_xml(file: Path) -> XMLAnnotation:
    """Read an annotation. Raises ``DataError`` for invalid XML and for objects without name or box."""
    root = _parse(file)
    if root.tag != "annotation":
        raise DataError(
            f"{file} holds <{root.tag:.40}> instead of <annotation>, so it is not a Pascal VOC annotation; remove it"
        )
    size = root.find("size")
    sides = [0 if size is None else whole_number(_text(size, key)) or 0 for key in ("height", "width")]
    valid = all(0 < side <= _LARGEST_SIDE for side in sides)
    return XMLAnnotation(
        filename=_text(root, "filename"),
        size=(sides[0], sides[1]) if valid else (0, 0),
        objects=[_object(each, f"{file}: object {i}") for i, each in enumerate(root.findall("object"), 1)],
    )


def _parse(file: Path) -> Element:
    content = read_bytes(file)
    if not content.strip():
        raise DataError(f"{file} is empty; export it again, or remove it")
    builder = _Builder(file)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.tree.data
    parser.StartDoctypeDeclHandler = builder.refuse_document_type
    try:
        encoding = _EAST_ASIAN.match(content)
        parser.Parse(content.decode(encoding[1].decode()) if encoding else content, True)
    except DataError:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise DataError(f"{file} is not valid XML ({error}); export it again, or remove it") from error
    return builder.tree.close()


class _Builder:
    """Builder of a tree of elements without attributes and without prefixes of namespaces."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.tree = TreeBuilder()
        self._open = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._open += 1
        if self._open > _DEEPEST:
            raise DataError(f"{self.file} is nested deeper than {_DEEPEST} levels; replace it")
        self.tree.start(tag.rpartition(":")[2], {})

    def end(self, tag: str) -> None:
        self._open -= 1
        self.tree.end(tag.rpartition(":")[2])

    def refuse_document_type(self, *_: object) -> None:
        raise DataError(
            f"{self.file} has a document type (<!DOCTYPE ...>), which can define harmful entities; remove it"
        )


def _text(element: Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()


def _object(element: Element, what: str) -> XMLObject:
    name = _text(element, "name")
    if not name:
        raise DataError(f"{what} has no name; add one")
    what = f"{what}, {name!r:.60},"
    box, polygon, rotated = (element.find(tag) for tag in ("bndbox", "polygon", "robndbox"))
    if box is not None:
        x0, y0, x1, y1 = _numbers(_texts(box), _CORNERS, what)
        corners = (x0, y0, x1, y1)
    elif rotated is not None:
        corners = _around_rotated(rotated, what)
    elif polygon is not None:
        corners = _around_polygon(polygon, what)
    else:
        raise DataError(f"{what} has no bndbox; add one, or remove the object")
    difficult = _text(element, "difficult").lower()
    return XMLObject(name, corners, difficult in ("true", "yes") or bool(number(difficult)), box is None)


def _texts(element: Element) -> dict[str, str]:
    return {each.tag: (each.text or "").strip() for each in element}


def _numbers(texts: Mapping[str, str], tags: Sequence[str], what: str) -> list[float]:
    """Return the numbers in these elements. texts: their texts. what: name of the whole in messages."""
    values: list[float] = []
    for tag in tags:
        value = number(texts.get(tag, ""))
        if value is None:
            given = f"{tag} {texts[tag]!r:.40}" if tag in texts else f"no {tag}"
            raise DataError(f"{what} has {given}; write a finite number")
        values.append(value)
    return values


def _around_rotated(element: Element, what: str) -> Corners:
    """Return the corners around a box that is turned by an angle in radians, as roLabelImg writes it."""
    cx, cy, w, h, angle = _numbers(_texts(element), ("cx", "cy", "w", "h", "angle"), what)
    cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
    half_width, half_height = (w * cosine + h * sine) / 2, (w * sine + h * cosine) / 2
    return cx - half_width, cy - half_height, cx + half_width, cy + half_height


def _around_polygon(element: Element, what: str) -> Corners:
    """Return the corners around a polygon of elements x1, y1, x2, y2, ... or of elements pt with x and y."""
    points = [_numbers(_texts(point), ("x", "y"), what) for point in element.findall("pt")]
    if not points:
        texts = _texts(element)
        count = next(i for i in range(len(texts) + 1) if f"x{i + 1}" not in texts)
        points = [_numbers(texts, (f"x{i}", f"y{i}"), what) for i in range(1, count + 1)]
    if len(points) < 3:
        raise DataError(
            f"{what} has no bndbox, and a polygon of {len(points)} points; add a bndbox, or remove the object"
        )
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)
