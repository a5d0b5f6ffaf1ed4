"""Text from elsewhere is shown on one line, and nothing in it acts on a terminal."""

import pytest

from conditional_detr.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m\x07", r"\x1b[31mred\x1b[0m\x07"),
        ("one\nerror: two\r\t\x7f", r"one\nerror: two\r\t\x7f"),
        (
            "\x9b31m\x85\xad",
            r"\x9b31m\x85\xad",
        ),  # one byte that begins a command; a new line; a hyphen that is not seen
        ("photo\u202egpj.exe\u2066\u200f", r"photo\u202egpj.exe\u2066\u200f"),
        ("\u2028\u2029\ufeff\u200b", r"\u2028\u2029\ufeff\u200b"),
        ("caf\udce9.jpg\ud800", r"caf\udce9.jpg\ud800"),
    ],
)
def test_what_acts_on_a_terminal_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown
    shown.encode("ascii")


@pytest.mark.parametrize(
    "text",
    [
        "街道 车.jpg",
        "ünïcode é",
        "👨‍👩‍👧 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🚗️",
        "می‌خواهم",
        "हिन्दी",
        "a\u3000b\xa0c",
        r"C:\new [red]x[/red] :car: {0} %s",
    ],
)
def test_legible_text_stays(text):
    assert printable(text) == text
