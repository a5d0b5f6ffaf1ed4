"""The two errors that a user may meet: the input is at fault, or training diverged."""


class InputError(ValueError):
    """Input that can't be used. The message is one sentence that names the file, key or image and the remedy.

    The command line prints it without a traceback and exits with 2; a program catches it as a ``ValueError``.
    """


class NonFiniteError(ArithmeticError):
    """NaN or infinity in training. The message names term, decoder layer and images."""
