"""Write a CSV table of objects, as RFC 4180 has it, in UTF-8. A text that a spreadsheet would compute gets an apostrophe in front."""

import csv
from pathlib import Path

from conditional_detr.inference.formats import DetectionSet
from conditional_detr.inference.formats.table import COLUMNS, rows

NAME, XML, PER_IMAGE = "detections.csv", False, False
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet computes texts that begin with these


def write(path: Path, found: DetectionSet) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows(found):
            writer.writerow(
                [f"'{each}" if isinstance(each, str) and each.startswith(_FORMULA) else each for each in row]
            )
