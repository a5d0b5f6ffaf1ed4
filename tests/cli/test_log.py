"""What the library logs, as the command line shows it."""

import logging

from conditional_detr.cli.log import show_log


def test_messages_are_lines_on_standard_error_and_warnings_are_marked(capsys):
    show_log()
    logging.getLogger("conditional_detr.training").info("[a message] with brackets")
    logging.getLogger("conditional_detr").warning("a warning")
    logging.getLogger("conditional_detr").debug("nobody asked")
    out, error = capsys.readouterr()
    assert out == ""
    assert error.splitlines() == ["[a message] with brackets", "warning: a warning"]
