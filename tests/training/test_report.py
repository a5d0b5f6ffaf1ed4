"""Progress reports on a terminal and elsewhere."""

import errno
import io
import os
import re
import sys

import pytest
from rich.console import Console

from conditional_detr.training.report import ConsoleReporter, TensorBoard

STEP = {"step": 5, "loss": 1.25, "lr": 1e-4, "images_per_second": 20.0, "data_wait": 0.1}
EVALUATION = {"epoch": 1.0, "AP": 0.5, "AP50": 0.75, "AP75": 0.4}


def tell(terminal: bool) -> str:
    stream = io.StringIO()
    reporter = ConsoleReporter(Console(file=stream, force_terminal=terminal, width=200))
    reporter.message("[a message]")
    reporter.begin(0, 20, 10)
    for step in (5, 6, 7):
        reporter.step({**STEP, "step": step})
    reporter.evaluating(1, 2)
    reporter.evaluated(EVALUATION, best=True)
    reporter.evaluated({**EVALUATION, "AP": -1.0}, best=True)
    reporter.evaluated({**EVALUATION, "AP": 0.0}, best=True)
    reporter.end()
    return stream.getvalue()


def test_plain_lines_when_not_on_a_terminal():
    text = tell(terminal=False)
    assert "\x1b" not in text
    assert text.count("loss 1.250") == 1  # one line every ten seconds, not one per step
    for part in ("epoch 1/2  step 5/20", "lr 1.0e-04", "20.0 images/s", "data wait 10%", "eta ", "[a message]"):
        assert part in text
    assert "epoch 1: AP 0.500  AP50 0.750  AP75 0.400  (best so far)" in text
    assert "epoch 1: no boxes to measure AP with\n" in text
    assert "epoch 1: AP 0.000  AP50 0.750  AP75 0.400  (kept as the newest)" in text


def test_a_closed_terminal_is_no_error(monkeypatch):
    """After SIGHUP, writing to the terminal fails. The run still has to be saved."""

    class Closed(io.StringIO):
        def write(self, text: str = "") -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        flush = write

    monkeypatch.setattr(sys, "stderr", Closed())
    reporter = ConsoleReporter()
    reporter.message("text")
    reporter.begin(0, 20, 10)
    reporter.step(STEP)
    reporter.end()
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    reporter.message("there again")
    assert stream.getvalue() == "there again\n"


def test_the_live_line_is_on_the_standard_error_of_the_moment(monkeypatch):
    """The live line puts a proxy in the place of ``sys.stderr``, which must not be written to by itself."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    reporter = ConsoleReporter()
    reporter.begin(0, 20, 10)
    reporter.step(STEP)
    print("from elsewhere", file=sys.stderr)
    reporter.end()
    assert "epoch 1/2  step 5/20" in terminal.getvalue()
    assert "from elsewhere" in terminal.getvalue()


def test_tensorboard_gets_no_metric_that_can_not_be_measured():
    written = []

    class Writer:
        def add_scalar(self, *arguments) -> None:
            written.append(arguments)

    board = TensorBoard.__new__(TensorBoard)
    board.writer = Writer()
    board.write({"kind": "evaluation", "step": 3, "AP": 0.5, "APs": -1.0})
    board.write({"kind": "model", "step": 4, "epoch": 1.0})
    assert written == [("evaluation/AP", 0.5, 3)]


def test_live_display_on_a_terminal():
    text = tell(terminal=True)
    assert "\x1b" in text
    assert "evaluating image 1/2" in text  # the last state of the live line
    assert "35%" in text


@pytest.mark.parametrize("soft_wrap", [False, True])
@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_time_to_go_is_seen_at_every_width(width, soft_wrap, monkeypatch):
    """A long run has the longest line. Parts that do not fit are left out from the end."""
    monkeypatch.setattr("rich.progress.Task.time_remaining", property(lambda _: 99 * 3600 + 59 * 60 + 58))
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, soft_wrap=soft_wrap, color_system=None)
    reporter = ConsoleReporter(console)
    reporter.begin(360_000, 369_650, 7393)
    reporter.step({**STEP, "step": 365_000, "loss": 12.345, "images_per_second": 123.4, "data_wait": 1.0})
    reporter.progress.refresh()
    reporter.evaluating(4999, 5000)
    reporter.progress.refresh()
    reporter.end()
    lines = [re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", line).rstrip() for line in re.split(r"[\r\n]", stream.getvalue())]
    steps = [line for line in lines if "epoch 50/50" in line]
    evaluations = [line for line in lines if "evaluating" in line]
    assert steps
    assert evaluations
    for line in (*steps, *evaluations):
        assert len(line) <= width
        assert re.search(r"99% eta 99:59:58$", line), line
    assert ("step 365000/369650  loss 12.345" in steps[-1]) == (width >= 80)
    assert ("data wait 100%" in steps[-1]) == (width >= 200)
