"""What the command line prints: log messages of the library, and names that hold control characters."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from PIL import Image

from conditional_detr.cli.evaluate import print_table
from conditional_detr.cli.log import say, show_log
from conditional_detr.cli.tables import aligned
from conditional_detr.data.reading import read_coco
from conditional_detr.evaluation.coco import CocoMetrics
from conditional_detr.record import Categories
from conditional_detr.training.introduction import category_table
from tests.cli.test_commands import cdetr, refused


def test_messages_are_lines_on_standard_error_and_warnings_are_marked(capsys):
    show_log()
    logging.getLogger("conditional_detr.training").info("[a message] with brackets")
    logging.getLogger("conditional_detr").warning("a warning")
    logging.getLogger("conditional_detr").debug("nobody asked")
    out, error = capsys.readouterr()
    assert out == ""
    assert error.splitlines() == ["[a message] with brackets", "warning: a warning"]


NASTY = "\x1b[31m[red]x[/red] :car: \udce9\nerror: 车"
SHOWN = r"\x1b[31m[red]x[/red] :car: \udce9\nerror: 车"


def test_names_are_shown_as_they_are_but_act_on_nothing(capsys, tmp_path):
    show_log()
    logging.getLogger("conditional_detr").info(f"opened {NASTY}")
    for row in category_table(Categories((1,), (NASTY,))):
        logging.getLogger("conditional_detr").info(row)
    say(f"query 1: {NASTY}", *aligned([(NASTY, "x"), ("1", "2")], left=(0,)))
    out, error = capsys.readouterr()
    assert error.splitlines() == [f"opened {SHOWN}", "logit  category id  name", f"    0            1  {SHOWN}"]
    assert out.splitlines() == [f"query 1: {SHOWN}", f"{SHOWN}  x", f"{'1':{len(SHOWN)}}  2"]


def test_the_table_of_an_evaluation(capsys, tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "x.png")
    content = {
        "images": [{"id": 1, "file_name": "x.png", "width": 1, "height": 1}],
        "annotations": [],
        "categories": [{"id": 1, "name": "a"}],
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    data = replace(read_coco(tmp_path / "x.json", [tmp_path]), categories=Categories((1,), (NASTY,)))
    print_table(CocoMetrics({"AP": 0.5}, {1: 0.5}, 100), data)
    assert SHOWN in capsys.readouterr().out


@pytest.mark.parametrize("name", ["\x1b[31mred.yaml", "a\nerror: b.yaml", "caf\udce9.yaml"])
def test_errors_stay_one_line(name, tmp_path):
    refused(cdetr("train", name, cwd=tmp_path), r"\\x1b\[31mred\.yaml|a\\nerror: b\.yaml|caf\\udce9\.yaml")


def test_mistakes_in_options_are_one_sentence():
    refused(cdetr("predict", "a", "b", "--\x1b[31m"), r"No such option:? '?--\\x1b\[31m.*\(see cdetr predict --help\)")
    refused(cdetr("predict", "a", "b", "--threshold", "2"), "--threshold")
    refused(cdetr("trian"), "Did you mean 'train'")
    refused(cdetr("predict"), "Missing argument 'SOURCE'")
    assert cdetr().returncode == 2


def _run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "conditional_detr", *arguments], text=True, **options)


def test_a_terminal_without_unicode_shows_escapes():
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    result = _run("train", "车.yaml", capture_output=True, env=environment)
    assert result.returncode == 2
    assert r"\u8f66.yaml can't be read" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_output_on_a_full_disk_is_an_error_of_one_line():
    with open("/dev/full", "w") as full:
        result = _run("train", "--presets", stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    assert result.stderr == "error: No space left on device\n"
