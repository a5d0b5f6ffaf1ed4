"""Numbers of annotation files: what is a whole number or a coordinate, in whatever form a tool wrote it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conditional_detr.data.layouts.numbers import number, whole_number

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers(), max_size=2)
) | st.text("0123456789+-.eE_ x", max_size=12)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((3, 3), (-3, -3), (0, 0), (2**63 - 1, 2**63 - 1), (-(2**63), -(2**63))),
        *((3.0, 3), (-0.0, 0), (2.0**53 - 1, 2**53 - 1), (np.float64(3), 3)),
        *(("3", 3), ("-3", -3), ("+3", 3), ("007", 7), (" 3\n", 3), ("3.0", 3), ("3.", 3)),
        ("9223372036854775807", 2**63 - 1),
    ],
    ids=repr,
)
def test_whole_numbers(value, expected):
    found = whole_number(value)
    assert found == expected
    assert type(found) is int


@pytest.mark.parametrize(
    "value",
    [
        *(True, False, None, [], [3], {}, b"3"),
        *(2**63, -(2**63) - 1, 10**400, 2.5, 2.0**53, 1e300, math.nan, math.inf, -math.inf),
        *("", " ", "3a", "a3", "3 4", "2.5", "1e3", "0x10", "1_000", "1,000", "--3", "+", ".0", "nan", "inf", "true"),
        *("٣", "３", "3\0", "9223372036854775808", "9" * 20, "1" * 100_000),  # noqa: RUF001 - digits of other scripts
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_whole_number(value):
    assert whole_number(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((3, 3.0), (3.5, 3.5), (-2.25, -2.25), (10**300, 1e300), (5e-324, 5e-324)),
        *(("12.5", 12.5), ("12", 12.0), ("-1.5", -1.5), (".5", 0.5), ("1.", 1.0), ("5e-2", 0.05), (" 7 ", 7.0)),
        ("1e-400", 0.0),
    ],
    ids=repr,
)
def test_coordinates(value, expected):
    found = number(value)
    assert found == expected
    assert type(found) is float


@pytest.mark.parametrize(
    "value",
    [
        *(True, False, None, [], [3], {}, math.nan, math.inf, -math.inf, 10**400, -(10**400)),
        *("", " ", ".", "e5", "1e", "1e400", "nan", "inf", "Infinity", "12,5", "1_0", "0x10", "1.2.3", "12px", "٣"),
        "1" * 100_000,
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_coordinate(value):
    assert number(value) is None


@settings(max_examples=200, derandomize=True, deadline=None)
@given(VALUES)
def test_any_value_has_an_answer(value):
    whole, coordinate = whole_number(value), number(value)
    assert whole is None or (type(whole) is int and -(2**63) <= whole < 2**63)
    assert coordinate is None or (type(coordinate) is float and math.isfinite(coordinate))
    assert whole is None or coordinate == float(whole)  # a whole number is a coordinate too
