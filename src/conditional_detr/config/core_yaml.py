"""YAML of settings files: values of the core schema of YAML 1.2, read safely from untrusted text.

PyYAML parses the text into events, which this module turns into values. Tags, aliases and repeated keys are refused, merge
keys have no effect, and sizes are limited, so that no text runs code, takes long or fills the memory.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

MOST_BYTES = 2**18
MOST_VALUES = 10_000
DEEPEST = 20
_LONGEST_NUMBER = 40  # characters; Python refuses to convert very long numbers

_NUMBERS: tuple[tuple[re.Pattern[str], Callable[[str], int | float]], ...] = (
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"0o[0-7]+"), lambda text: int(text[2:], 8)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text[2:], 16)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(inf|Inf|INF)"), lambda text: float(text.replace(".", ""))),
    (re.compile(r"\.(nan|NaN|NAN)"), lambda _: float("nan")),
)
# The core schema has TRUE and FALSE too; here they are text.
_WORDS = {
    **dict.fromkeys(("null", "Null", "NULL", "~", "")),
    **dict.fromkeys(("true", "True"), True),
    **dict.fromkeys(("false", "False"), False),
}


class _Dumper(yaml.SafeDumper):
    """YAML dumper that also quotes text that only ``read_yaml`` would read as a number."""


for _pattern, _ in _NUMBERS:
    _Dumper.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(f"(?:{_pattern.pattern})$"), list("+-.0123456789")
    )


class YAMLError(ValueError):
    """Text that is not valid YAML for ``read_yaml``. The message is one short line."""


def read_yaml(text: str) -> Any:
    """Return the value of a YAML document: dict, list, str, int, float, bool or None. Raises ``YAMLError`` for invalid text."""
    if len(text.encode(errors="replace")) > MOST_BYTES:
        raise YAMLError(f"it is longer than {MOST_BYTES} bytes")
    return _Reading(text).document()


def write_yaml(value: Mapping[str, Any]) -> str:
    """Return a YAML document that ``read_yaml`` reads as ``value``."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


class _Reading:
    def __init__(self, text: str) -> None:
        self.events = self._parsed(text)
        self.values = 0

    @staticmethod
    def _parsed(text: str) -> Iterator[Event]:
        try:
            yield from yaml.parse(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            problem = " ".join(str(error.problem or error.context).split())
            raise YAMLError(f"{problem[:100]}{_place(error.problem_mark)}") from error
        except yaml.YAMLError as error:
            raise YAMLError(" ".join(str(error).split())[:100]) from error
        except (ValueError, OverflowError) as error:  # for example, the escape of a character that does not exist
            raise YAMLError(" ".join(str(error).split())[:100]) from error

    def document(self) -> Any:
        value: Any = None
        documents = 0
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise YAMLError(f"it holds more than one document{_place(event.start_mark)}")
                value = self._value(next(self.events), 0)
        return value

    def _value(self, event: Event, depth: int) -> Any:
        self.values += 1
        if self.values > MOST_VALUES:
            raise YAMLError(f"it holds more than {MOST_VALUES} values")
        if depth > DEEPEST:
            raise YAMLError(f"it is nested deeper than {DEEPEST} levels{_place(event.start_mark)}")
        if isinstance(event, AliasEvent):
            raise YAMLError(f"write the value in place of *{str(event.anchor)[:40]}{_place(event.start_mark)}")
        _check_untagged(event)
        if isinstance(event, MappingStartEvent):
            return self._mapping(depth)
        if isinstance(event, SequenceStartEvent):
            values: list[Any] = []
            while not isinstance(event := next(self.events), SequenceEndEvent):
                values.append(self._value(event, depth + 1))
            return values
        assert isinstance(event, ScalarEvent)
        return _scalar(event) if event.implicit[0] else event.value

    def _mapping(self, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                raise YAMLError(f"a key must be a name{_place(event.start_mark)}")
            _check_untagged(event)
            if event.value in values:
                raise YAMLError(f"{event.value[:40]!r} is given twice{_place(event.start_mark)}")
            values[event.value] = self._value(next(self.events), depth + 1)
        return values


def _check_untagged(event: Event) -> None:
    tag: str | None = getattr(event, "tag", None)
    if tag is not None:
        raise YAMLError(f"leave out the tag {tag[:40]!r}{_place(event.start_mark)}")


def _scalar(event: ScalarEvent) -> Any:
    text: str = event.value
    if text in _WORDS:
        return _WORDS[text]
    for pattern, number in _NUMBERS:
        if pattern.fullmatch(text):
            if len(text) > _LONGEST_NUMBER:
                raise YAMLError(f"a number has {len(text)} characters{_place(event.start_mark)}")
            return number(text)
    return text


def _place(mark: Any) -> str:
    return "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
