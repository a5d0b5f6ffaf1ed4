"""Read numbers of annotation files, which tools write as 3, 3.0 or "3"."""

import math
import re

_WHOLE = re.compile(r"([-+]?[0-9]{1,19})(\.0{0,20})?")
_DECIMAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_LONGEST = 400  # characters of text that can be a number
_INT64 = range(-(2**63), 2**63)
_EXACT = 2.0**53  # from here on, a float can stand for several whole numbers


def whole_number(value: object) -> int | None:
    """Return an id, a size or a count as a whole number of 64 bits, or None for any other value.

    Taken are an ``int``, a ``float`` such as 3.0, and text such as "3", " 3 " and "3.0". A bool is no number.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        matched = _WHOLE.fullmatch(value.strip()) if len(value) <= _LONGEST else None
        value = int(matched[1]) if matched else None
    if isinstance(value, float):
        value = int(value) if abs(value) < _EXACT and value.is_integer() else None
    return value if isinstance(value, int) and value in _INT64 else None


def number(value: object) -> float | None:
    """Return a coordinate as a finite float, or None for any other value.

    Taken are an ``int``, a ``float``, and decimal text such as "12.5" and "5e-2". A bool is no number.
    """
    if isinstance(value, str):
        text = value.strip() if len(value) <= _LONGEST else ""
        value = float(text) if _DECIMAL.fullmatch(text) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        found = float(value)
    except OverflowError:  # an integer larger than any float
        return None
    return found if math.isfinite(found) else None
