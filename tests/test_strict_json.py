"""JSON text is read as the standard has it; what Python takes beyond that is refused with its place."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conditional_detr.strict_json import JSONError, read_json_text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": NaN}', "NaN is no number in JSON, at the key 'a' (line 1, column 7)"),
        ('{"a":\n [1, -Infinity]}', "-Infinity is no number in JSON, at the key 'a' (line 2, column 6)"),
        ("[Infinity]", "Infinity is no number in JSON (line 1, column 2)"),
        ('{"s": "NaN", "a": [{"b": 1}, NaN]}', "NaN is no number in JSON, at the key 'a' (line 1, column 30)"),
        ('{"a": 1, "a": 2}', "the key 'a' is given twice (line 1, column 10)"),
        ('{"b": "a", "a": 1,\r\n "\\u0061": 2}', "the key 'a' is given twice (line 2, column 2)"),
        ('{"x": [{"id": 1}, {"id": 2, "y": {"id": 3}, "id": 4}]}', "the key 'id' is given twice (line 1, column 45)"),
        ('{"a\\"{": 1, "a\\"{": 2}', "the key 'a\"{' is given twice (line 1, column 13)"),
        ('{"s": "1e400", "a": [-1e400]}', "-1e400 is too large a number, at the key 'a' (line 1, column 22)"),
        ('{"a": ' + "1" * 5000 + "}", "a whole number has too many digits, at the key 'a' (line 1, column 7)"),
        (r'{"a": "x\ud800"}', r"\ud800 is half of a character (line 1, column 9)"),
        (r'{"a": "\uDE00\uD83D"}', r"\uDE00 is half of a character (line 1, column 8)"),
        (r'{"\ud800": 1, "\ud800": 2}', r"the key '\ud800' is given twice (line 1, column 15)"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"a":' * 100_000, "it is nested too deeply"),
        ('{"a": 1,', "Expecting property name enclosed in double quotes (line 1, column 9)"),
        ("", "Expecting value (line 1, column 1)"),
        ('{"a": "x', "Unterminated string starting at (line 1, column 7)"),
        ('{"' + "k" * 1000 + '": NaN}', f"NaN is no number in JSON, at the key '{'k' * 40}' (line 1, column 1006)"),
    ],
    ids=lambda text: text[:30],
)
def test_what_is_refused_is_named_with_its_place(text, sentence):
    with pytest.raises(JSONError, match=f"^{re.escape(sentence)}$"):
        read_json_text(text)


@pytest.mark.parametrize(
    "text",
    [
        *('{"a": {"b": 1}, "c": {"b": 1}}', '[{"a": 1}, {"a": 2}]', '{"a": "NaN", "b": "Infinity"}', "{}", "null"),
        *(r'{"a": "\ud83d\ude00\uD83D\uDE00"}', r'{"a": "\\ud800"}', '{"a": [1e300, 1e-400, -0.0, -0]}', '"1e400"'),
        '{"a": ' + "1" * 400 + "}",
    ],
)
def test_the_rest_is_read_as_python_does(text):
    assert read_json_text(text) == json.loads(text)


def test_numbers_that_are_not_finite_can_be_taken():
    assert read_json_text('{"a": [Infinity, 1e400]}', finite=False) == {"a": [float("inf")] * 2}
    with pytest.raises(JSONError, match="given twice"):
        read_json_text('{"a": NaN, "a": 1}', finite=False)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
TEXTS = st.one_of(
    VALUES.map(json.dumps),
    st.lists(
        st.sampled_from([*'{}[],:"\\ \n', '"a"', '"a":', "1", "1e999", "NaN", "-Infinity", r"\ud800", "true"])
    ).map("".join),
    st.text(max_size=20),
)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(TEXTS)
def test_any_text_is_read_or_refused(text):
    value, sentence = None, ""
    try:
        value = read_json_text(text)
    except JSONError as error:
        sentence = str(error)
    assert "\n" not in sentence
    if not sentence:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        assert value == json.loads(text)
