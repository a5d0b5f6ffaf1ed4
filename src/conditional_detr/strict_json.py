"""JSON as its standard has it: Python's reader also takes NaN, Infinity, repeated keys and halves of characters.

Two programs can see different values in a file with a repeated key, and a NaN spreads through everything computed from it. Both are
refused, with their place in the text.
"""

import json
import math
import re
from typing import Any, NoReturn

# An escape in a string: of a whole character outside the basic plane, of half of one (group 1), or another.
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)")
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'


class JSONError(ValueError):
    """Text that is not valid JSON. The message is one short line with the place in the text."""


class _RefusedError(Exception):
    """Part of the text that Python's reader takes. pattern: what it looks like outside of strings; None for a repeated key."""

    def __init__(self, what: str, pattern: str | None = None) -> None:
        self.what, self.pattern = what, pattern


def read_json_text(text: str, *, finite: bool = True) -> Any:
    """Return the value of JSON text. Raises ``JSONError`` for invalid text, a key given twice, NaN and infinity.

    finite: False to take NaN and infinity as Python writes them.
    """
    numbers: dict[str, Any] = {"parse_constant": _no_constant, "parse_float": _finite} if finite else {}
    try:
        value = json.loads(text, object_pairs_hook=_unique, **numbers)
    except json.JSONDecodeError as error:
        raise JSONError(f"{error.msg} (line {error.lineno}, column {error.colno})") from error
    except _RefusedError as error:
        raise JSONError(_located(text, error)) from error
    except RecursionError as error:
        raise JSONError("it is nested too deeply") from error
    except ValueError as error:  # Python converts no whole number of thousands of digits
        raise JSONError(_located(text, _RefusedError("a whole number has too many digits", "-?[0-9]{640,}"))) from error
    if r"\ud" in text or r"\uD" in text:
        half = next((match for match in _ESCAPE.finditer(text) if match[1]), None)
        if half is not None:
            raise JSONError(rf"\{half[1]} is half of a character{_place(text, half.start())}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RefusedError("")
    return found


def _no_constant(name: str) -> NoReturn:
    raise _RefusedError(f"{name} is no number in JSON", name)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _RefusedError(f"{text[:40]} is too large a number", re.escape(text[:100]))
    return value


def _located(text: str, refused: _RefusedError) -> str:
    """Return what was refused, with its key and place. The text before that place is valid JSON."""
    pattern = f"|(?<![0-9.eE+-]){refused.pattern}" if refused.pattern else ""
    objects: list[dict[str, None]] = [{}]  # keys of the objects around the place
    for match in re.finditer(rf"({_STRING})(\s*:)?|[{{}}]{pattern}", text):
        string, colon = match.groups()
        if colon:
            key: str = json.loads(string) if "\\" in string else string[1:-1]
            if key in objects[-1] and not refused.pattern:
                return f"the key {key[:40]!r} is given twice{_place(text, match.start())}"
            objects[-1][key] = None
        elif string:
            continue
        elif match[0] == "{":
            objects.append({})
        elif match[0] == "}":
            objects.pop()
        else:
            key = next(reversed(objects[-1]), "")
            return f"{refused.what}{f', at the key {key[:40]!r}' if key else ''}{_place(text, match.start())}"
    return refused.what


def _place(text: str, position: int) -> str:
    line = text.count("\n", 0, position) + 1
    return f" (line {line}, column {position - text.rfind(chr(10), 0, position)})"
