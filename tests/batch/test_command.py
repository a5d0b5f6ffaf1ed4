"""``cdetr batch``: it can be killed at any moment and repeated, its parts run at the same time, and errors are one sentence."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conditional_detr.batch import local
from conditional_detr.batch.shards import BatchFolder
from conditional_detr.cli.pace import Pace
from tests.batch.conftest import COUNT, files_in, rows, write_photos
from tests.cli.test_commands import cdetr, refused
from tests.conftest import no_room_for_files_over

COMMAND = [sys.executable, "-m", "conditional_detr", "batch"]


def started(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen([*COMMAND, *map(str, arguments)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def contents(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((out / "shards").iterdir())}


def check_each_image_once(out: Path, photos: Path) -> None:
    assert [row["path"] for row in rows(out)] == files_in(photos)
    assert not [row for row in rows(out) if row["error"]]


def test_results_and_summary(model, photos, tmp_path):
    out = tmp_path / "out"
    arguments = ("batch", model, photos, "--out", out, "--shard-size", 4, "--threshold", 0.55)
    result = cdetr(*arguments)
    assert result.returncode == 0, result.stderr
    check_each_image_once(out, photos)
    objects = sum(len(row["labels"]) for row in rows(out))
    assert f"{objects} objects in {COUNT} images at " in result.stdout
    assert result.stdout.endswith(f" images/s; results are in {out}/shards\n")
    before = contents(out)
    again = cdetr(*arguments, "--json")
    assert "3 of 3 shards are done already" in again.stderr
    assert contents(out) == before
    summary = json.loads(again.stdout)
    assert summary == {
        "images": COUNT,
        "errors": 0,
        "objects": objects,
        "shards": 3,
        "computed": 0,
        "seconds": 0.0,
        "images_per_second": None,
        "complete": True,
        "out": str(out),
    }


def test_images_with_errors_are_counted(model, photos, tmp_path):
    (photos / "broken.jpg").write_bytes(b"no image")
    for _ in range(2):  # also when nothing is computed
        result = cdetr("batch", model, photos, "--out", tmp_path / "out")
        assert result.returncode == 2
        assert f"1 of {COUNT + 1} images have an error" in result.stderr


def test_a_kill_at_any_moment(model, tmp_path):
    photos = write_photos(tmp_path / "photos", 40)
    arguments = (model, photos, "--shard-size", 2, "--threshold", 0.55)
    out = tmp_path / "out"
    kills = 0
    for wanted in (1, 6):
        process = started(*arguments, "--out", out)
        while process.poll() is None and len(list((out / "shards").glob("0*"))) < wanted:
            time.sleep(0.002)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert kills
    before = contents(out)
    result = cdetr("batch", *arguments, "--out", out)
    assert result.returncode == 0, result.stderr
    check_each_image_once(out, photos)
    after = contents(out)
    assert {name: after.get(name, content) for name, content in before.items()} == before  # what was done stays
    assert not [name for name in after if name.endswith(".partial")]
    cdetr("batch", *arguments, "--out", tmp_path / "whole")
    assert rows(tmp_path / "whole") == rows(out)


def test_parts_run_at_the_same_time(model, photos, tmp_path):
    arguments = (model, photos, "--out", tmp_path / "out", "--shard-size", 2, "--shard")
    processes = [started(*arguments, f"{i}/3") for i in (1, 2, 2)]  # one of them twice, which is a waste but no harm
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert sorted(contents(tmp_path / "out")) == [f"{i:06}.parquet" for i in (0, 1, 3, 4)]
    result = cdetr("batch", *arguments, "3/3", "--json")
    assert (json.loads(result.stdout)["images"], json.loads(result.stdout)["complete"]) == (2, True)
    check_each_image_once(tmp_path / "out", photos)
    assert cdetr("batch", *arguments, "7/9").returncode == 0  # without shards, as array jobs may be


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_keep_what_is_done(model, photos, tmp_path, monkeypatch, number):
    plain = BatchFolder.write

    def write(self, shard, found):
        if shard == 1:
            os.kill(os.getpid(), number)
        return plain(self, shard, found)

    arguments = ("batch", model, photos, "--out", tmp_path / "out", "--shard-size", 4)
    with monkeypatch.context() as patch:
        patch.setattr(BatchFolder, "write", write)
        result = cdetr(*arguments)
    assert result.returncode == 1
    assert result.stderr == (
        f"error: interrupted: 1 of 3 shards are done and kept in {tmp_path / 'out'}; the same command goes on from there\n"
    )
    assert cdetr(*arguments).returncode == 0
    check_each_image_once(tmp_path / "out", photos)


def test_a_full_disk_keeps_what_is_done(model, photos, tmp_path, monkeypatch):
    plain = local.compute

    def compute(*arguments):
        compute.calls += 1
        if compute.calls == 2:
            with no_room_for_files_over(100):
                folder, found = arguments[1], plain(*arguments)
                BatchFolder(str(tmp_path / "out"), folder).write(1, found)
        return plain(*arguments)

    compute.calls = 0
    monkeypatch.setattr(local, "compute", compute)
    result = cdetr("batch", model, photos, "--out", tmp_path / "out", "--shard-size", 4)
    assert result.returncode == 1
    assert "can't be read or written (File too large): 1 of 3 shards are done and kept" in result.stderr
    assert list(contents(tmp_path / "out")) == ["000000.parquet"]


def test_other_settings_are_refused(model, photos, tmp_path):
    arguments = ("batch", model, photos, "--out", tmp_path / "out")
    assert cdetr(*arguments, "--shard-size", 4).returncode == 0
    before = contents(tmp_path / "out")
    refused(cdetr(*arguments), r"shards of 4 images instead of 1000; repeat that command.*\(here: --out\)")
    refused(cdetr(*arguments, "--shard-size", 4, "--threshold", 0.1), "threshold 0.5 instead of 0.1")
    refused(cdetr("batch", "starter:tiny", *arguments[2:], "--shard-size", 4), "another model")
    (photos / "000.png").unlink()
    refused(cdetr(*arguments, "--shard-size", 4), "9 images instead of 8 and other images")
    assert contents(tmp_path / "out") == before


def test_wrong_arguments_are_one_sentence(model, photos, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    good = ("batch", model, photos, "--out", tmp_path / "out")
    for part in ("0/4", "5/4", "1"):
        refused(cdetr(*good, "--shard", part), f"part '{part}' does not exist; give I/N .*here: --shard")
    refused(cdetr(*good, "--engine", "spark"), "engine 'spark' does not exist; give local or ray .*here: --engine")
    refused(cdetr(*good, "--threshold", "2"), "--threshold is '2'")
    refused(cdetr("batch", model, tmp_path / "gone", "--out", tmp_path / "out"), "gone does not exist")
    refused(cdetr(*good[:3], "--out", tmp_path / "mine"), r"holds other files, such as notes\.txt.*here: --out")
    assert not (tmp_path / "out").exists()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        refused(cdetr(*good, "--engine", "ray"), r"needs Ray Data: pip install 'conditional-detr\[ray\]'")
    for name, inputs in (("pyarrow", photos), ("s3fs", "s3://bucket")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            refused(cdetr("batch", model, inputs, "--out", tmp_path / "out"), "pip install")


def test_progress_says_what_is_left(monkeypatch, capsys):
    times = iter([0.0, 10.0, 10.0, 40.0, 40.0, 40.0])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    pace = Pace(1000, before=100)
    assert pace.text() == "100 of 1000 images"
    with pace:
        pace.advance(50)
        assert pace.text() == "150 of 1000 images, 5.0 images/s, 0:02:50 left"
        pace.advance(150)
    assert pace.images == 200
