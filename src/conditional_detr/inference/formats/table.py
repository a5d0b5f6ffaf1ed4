"""Rows of the formats that are tables: one for each object."""

from collections.abc import Iterator

from conditional_detr.inference.formats import DetectionSet, encodable

Row = tuple[int, str, int, int, int, str, float, float, float, float, float]
# Name of a column -> type, as pyarrow names it.
COLUMNS = {
    "image_id": "int64",
    "file_name": "string",
    "image_width": "int64",
    "image_height": "int64",
    "category_id": "int64",
    "category_name": "string",
    "score": "double",
    "x0": "double",
    "y0": "double",
    "x1": "double",
    "y1": "double",
}


def rows(found: DetectionSet) -> Iterator[Row]:
    for image in found.images():
        about = (image.number, encodable(image.file_name), image.width, image.height)
        for each in image.objects:
            x, y, width, height = each.box
            yield (*about, each.category_id, encodable(each.name), each.score, x, y, x + width, y + height)
