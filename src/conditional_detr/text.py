"""Texts of messages: those of unknown origin made safe to show, and numbers with their nouns."""

import re

# Characters that act on a terminal or hide what a text says: controls (C0, C1, DEL), invisible characters, line and paragraph
# separators, marks and overrides of the writing direction, and halves of surrogate pairs, which stand for undecodable bytes.
# Joiners (U+200C, U+200D) and tags are not among them, because Persian words and emoji contain them.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb]"
)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, such as "1 image" and "2 images"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def printable(text: object) -> str:
    """Return ``str(text)`` on one line, with escapes in the place of all characters that are not safe to show."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))
