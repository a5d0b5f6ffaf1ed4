"""docs/reference/json.md names the keys that ``--json`` prints."""

import json
import re

import pytest

from tests.cli.test_commands import cdetr
from tests.docs.blocks import ROOT

ARGUMENTS = {
    "cdetr evaluate": "runs/mine",
    "cdetr predict": "runs/mine street.jpg",
    "cdetr attention": "runs/mine street.jpg --top 1",
    "cdetr batch": "runs/mine street.jpg --out found-in-batch",
    "cdetr compare": "runs/mine runs/another",
    "cdetr convert": "runs/mine folder --to huggingface",
    "cdetr dataset shapes": "shapes --images 4 --val-images 2",
    "cdetr dataset scenes": "scenes --images 2 --val-images 1 --size 96 --workers 0",
    "cdetr dataset show": "mine shown.jpg",
    "cdetr dataset convert": "mine as-yolo --to yolo",
    "cdetr dataset split": "mine divided data.val=none --val 0.2",
}
ROWS = re.findall(r"^\| `(cdetr [^`]+)` \| (.*) \|$", (ROOT / "docs" / "reference" / "json.md").read_text(), re.M)


def test_the_page_is_complete():
    assert [command for command, _ in ROWS] == list(ARGUMENTS)


@pytest.mark.parametrize(("command", "cells"), ROWS, ids=[command for command, _ in ROWS])
def test_keys(command, cells, home):
    result = cdetr(*command.split()[1:], *ARGUMENTS[command].split(), "--json", cwd=home)
    assert result.returncode == 0, result.stderr
    assert list(json.loads(result.stdout)) == re.findall(r"`([^`]+)`", cells.partition("([")[0])
