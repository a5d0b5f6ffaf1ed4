"""Exceptions that users may see: an input is invalid, a run can't go on, or training diverged."""

import difflib
from collections.abc import Sequence


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return the end of a sentence that suggests the known word nearest to ``word``, or an empty text."""
    by_lower_case = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word[:60].lower(), by_lower_case, n=1, cutoff=0.5)
    return f" (did you mean {by_lower_case[near[0]]!r}?)" if near else ""


def newer_version(source: object, what: str, version: int, newest: int) -> str:
    """Return the sentence that refuses a file of a newer version. what: what the version is of; newest: the newest readable one."""
    return (
        f"{source} was written by a newer conditional-detr ({what} version {version}; this one reads up to {newest}); "
        f"upgrade: pip install --upgrade conditional-detr"
    )


class InputError(ValueError):
    """Invalid input. The message is one sentence that names the file, key or image and the remedy.

    The command line prints it without a traceback and exits with 2. Programs can catch it as ``ValueError`` or by subclass.

    argument: name of the Python argument to change, if there is one; the command line adds its own option for it.
    """

    def __init__(self, message: str, *, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


class SettingsError(InputError):
    """A setting or argument that does not exist, is out of range, or contradicts another."""


class DataError(InputError):
    """Annotations or a data set that can't be used."""


class ImageError(InputError):
    """An image that can't be read or used."""


class CheckpointError(InputError):
    """A checkpoint, run folder, state or export that can't be opened or does not fit."""


class RunError(RuntimeError):
    """A run that can't go on for a reason outside its input: a full disk, a removed folder, a killed loading process.

    The message is one sentence with the remedy.
    """


class NonFiniteError(ArithmeticError):
    """NaN or infinity in training. The message names the term, the decoder layer and the images."""
