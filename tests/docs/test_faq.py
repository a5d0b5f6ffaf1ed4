"""The messages on docs/faq.md are those that the commands print."""

import shlex

import pytest

from tests.cli.test_commands import cdetr
from tests.docs.blocks import ROOT, blocks, commands
from tests.docs.faults import FAULTS

PROVOKED = [block for block in blocks(ROOT / "docs" / "faq.md") if block.note.startswith("fault: ")]


@pytest.mark.parametrize("block", PROVOKED, ids=lambda block: f"{block.line} {block.note}")
def test_messages(block, home):
    """Every line of the page is in what the command prints, up to where the page cuts it."""
    FAULTS[block.note.removeprefix("fault: ")](home)
    (command,) = commands(block)
    result = cdetr(*shlex.split(command)[1:], cwd=home)
    printed = result.stdout + result.stderr
    for line in block.printed.splitlines():
        assert line in printed, printed
    assert result.returncode == (2 if "error: " in block.printed or "could not be used" in block.printed else 0)


def test_every_fault_is_shown():
    assert {block.note.removeprefix("fault: ") for block in PROVOKED} == set(FAULTS) - {
        "ids with gaps",
        "no boxes to find",
    }
    assert len(PROVOKED) > 20
    assert all(block.printed for block in PROVOKED)
