"""Write a CSV table of objects, as RFC 4180 has it, in UTF-8."""

import csv
from pathlib import Path

from conditional_detr.inference.formats import DetectionSet
from conditional_detr.inference.formats.table import COLUMNS, rows

NAME = "detections.csv"


def write(path: Path, found: DetectionSet) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows(found))
