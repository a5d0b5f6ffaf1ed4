"""The lines of ``metrics.jsonl``, each checked to be a record that plots, tables and a resume can use."""

import json
import logging
from functools import cache
from pathlib import Path
from typing import Any, cast

from conditional_detr.files import lines_of
from conditional_detr.strict_json import JSONError, read_json_text

logger = logging.getLogger(__name__)
Metrics = dict[str, Any]

LONGEST_LINE = 2**24  # bytes; AP of every class of the largest data sets takes less than one of them
# Kind -> its numbers. Records of other kinds are those of other programs.
_NUMBERS = {
    "train": ("step", "epoch", "loss"),
    "evaluation": ("step", "epoch", "AP", "AP50"),
    "model": ("step", "epoch"),
    "resume": ("step",),
}
_ROUNDING = 1e-6
_RANGES = {
    "step": (0, 2**53),
    "epoch": (0, 1e9),
    "seconds": (0, 1e12),
    "loss": (-1e38, 1e38),
    "AP": (-1, 1),  # -1 where the data has no boxes to find
    "AP50": (-1, 1),
}


def read_records(file: Path) -> list[Metrics]:
    """Return the records of training, evaluations and resumes, in the order of the file; none if there is no file.

    A line that a kill cut short is left out: the last one, or one before a resume. Any other line that is no record is left out
    too, and a logged warning names the first of them.
    """
    records: list[Metrics] = []
    damaged: list[tuple[int, str]] = []  # number of the line, and reason
    cut: list[tuple[int, str]] = []  # those at the end so far that a kill may have cut short
    if not file.is_file():
        return records
    for number, line in enumerate(lines_of(file, LONGEST_LINE), start=1):
        try:
            record = _record(line)
            if record is not None and records and record["kind"] != "resume" and record["step"] < records[-1]["step"]:
                raise ValueError(f"its step {record['step']} comes after step {records[-1]['step']}")
        except ValueError as error:
            (cut if _is_cut(line) else damaged).append((number, str(error)))
            continue
        if record is not None:
            damaged += cut if record["kind"] != "resume" else []
            cut = []
            records.append(record)
    if damaged:
        number, reason = min(damaged)
        more = f", and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        tell_once(f"{file}: left out line {number}, which is no record of a run ({reason}){more}")
    return records


@cache
def tell_once(text: str) -> None:
    """Log a warning, unless it was logged before: training reads its metrics after every epoch."""
    logger.warning(text)


def _record(line: bytes | None) -> Metrics | None:
    """Return the record in a line; None for a blank line and for a record of another program. Raises ``ValueError``."""
    if line is None:
        raise ValueError(f"it is longer than {LONGEST_LINE} bytes")
    if not line.strip():
        return None
    try:
        content = read_json_text(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError("it is not text in UTF-8") from error
    except JSONError as error:
        raise ValueError(str(error).replace("(line 1, column", "(column")) from error
    kind: Any = cast("Metrics", content).get("kind") if isinstance(content, dict) else None
    if not isinstance(kind, str):
        raise ValueError("it has no kind")
    if kind not in _NUMBERS:
        return None
    record = cast("Metrics", content)
    for key in (*_NUMBERS[kind], *(key for key in _RANGES if key in record)):
        if key not in record:
            raise ValueError(f"it has no {key}")
        value, (low, high) = record[key], _RANGES[key]
        if type(value) not in (int, float) or not low - _ROUNDING <= value <= high + _ROUNDING:
            raise ValueError(f"{key} is {json.dumps(value)[:40]}")
    if type(record["step"]) is not int:
        raise ValueError(f"step is {record['step']}")
    return record


def _is_cut(line: bytes | None) -> bool:
    """Tell whether a line is the beginning of one that ``RunFolder.append`` writes."""
    start = b'{"kind": "'
    return line is not None and (line.startswith(start) or start.startswith(line)) and not line.endswith(b"}")
