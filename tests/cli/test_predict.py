"""``cdetr predict`` loses nothing: it can be stopped at any moment and goes on, and never replaces what others wrote."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.cli.inputs import find_images
from conditional_detr.cli.predictions import Predictions
from conditional_detr.config import load_settings
from conditional_detr.data.reading import read_coco
from conditional_detr.inference.detector import Detector
from conditional_detr.record import Categories, Thresholds
from tests.checkpoints.models import randomized, save_checkpoint
from tests.cli.test_commands import cdetr, refused
from tests.conftest import no_room_for_files_over

COUNT = 6
NAMES = ("one", "[red]two[/red]\x1b[31m", "three")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    settings = load_settings("conditional-detr_tiny_shapes").model.resolved()
    save_checkpoint(randomized(settings, Categories((7, 0, 90), NAMES)), folder)
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    """Images of different sizes, so that a batch is padded."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        Image.fromarray(rng.integers(0, 256, (60 + 9 * i, 90, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """Names of the images that are opened, in order."""
    names: list[str] = []
    plain = Detector._open
    monkeypatch.setattr(Detector, "_open", lambda self, each: names.append(Path(each[1]).name) or plain(self, each))
    return names


def read(out: Path) -> dict:
    return json.loads((out / "detections.json").read_text())


def lines(out: Path) -> list[dict]:
    """The lines of images, without the first and the last."""
    found = [json.loads(line) for line in (out / "detections.jsonl").read_text().splitlines()]
    return [line for line in found if "file_name" in line]


def after(count: int, act, monkeypatch) -> None:
    """Call ``act`` before the result of image number ``count`` is written."""
    plain = Predictions.add

    def add(self, file, found):
        add.calls += 1
        if add.calls == count:
            act()
        plain(self, file, found)

    add.calls = 0
    monkeypatch.setattr(Predictions, "add", add)


# --- results ---


def test_automatic_thresholds(model, photos, tmp_path):
    out = tmp_path / "out"
    refused(
        cdetr("predict", model, photos, "--out", out, "--threshold", "auto"),
        "records no best thresholds; .*--threshold",
    )
    assert not out.exists() or not any(out.iterdir())
    for wrong in ("best", "1.5", "-1", "nan", ""):
        refused(cdetr("predict", model, photos, "--out", out, "--threshold", wrong), "give a number in 0..1, or auto")
    measured = open_checkpoint(model)
    thresholds = Thresholds(0.6, (0.7, None, 0.55))
    save_checkpoint(replace(measured, record=replace(measured.record, thresholds=thresholds)), tmp_path / "measured")
    result = cdetr("predict", tmp_path / "measured", photos, "--out", out, "--threshold", "auto")
    assert result.returncode == 0, result.stderr
    data = read(out)
    assert data["info"]["threshold"] == "auto"
    assert data["info"]["thresholds"] == [0.7, 0.6, 0.55]
    least = {7: 0.7, 0: 0.6, 90: 0.55}
    assert data["annotations"]
    assert all(each["score"] >= least[each["category_id"]] for each in data["annotations"])
    found = Detector.from_pretrained(model).predict(photos / "0.png", 0.0)
    expected = [each.score for each in found if each.score >= least[each.label]]
    assert [each["score"] for each in data["annotations"] if each["image_id"] == 1] == expected
    again = cdetr("predict", tmp_path / "measured", photos, "--out", out, "--threshold", "auto")
    assert "are done already" in again.stderr


def test_results_are_coco_data_with_all_images(model, photos, tmp_path):
    (photos / "broken.jpg").write_bytes(b"no image")
    threshold = 0.6
    result = cdetr("predict", model, photos, "--out", tmp_path / "out", "--threshold", threshold)
    assert result.returncode == 2
    data = read(tmp_path / "out")
    assert list(data) == ["info", "images", "annotations", "categories", "skipped"]
    assert data["info"]["threshold"] == threshold
    assert data["info"]["complete"] is True
    assert [(each["id"], each["width"], each["height"]) for each in data["images"]] == [
        (i + 1, 90, 60 + 9 * i) for i in range(COUNT)
    ]
    assert [Path(each["file_name"]).name for each in data["images"]] == [f"{i}.png" for i in range(COUNT)]
    assert data["categories"] == [{"id": id_, "name": name} for id_, name in zip((7, 0, 90), NAMES, strict=True)]
    assert [Path(each["file_name"]).name for each in data["skipped"]] == ["broken.jpg"]
    assert "not an image" in data["skipped"][0]["reason"]

    found = Detector.from_pretrained(model).predict(photos / "0.png", threshold)
    first = [each for each in data["annotations"] if each["image_id"] == 1]
    assert len(found) > 0
    assert [(each["category_id"], each["score"]) for each in first] == [(each.label, each.score) for each in found]
    assert first[0]["bbox"] == found.to_coco(1)[0]["bbox"]
    assert first[0]["area"] == pytest.approx(first[0]["bbox"][2] * first[0]["bbox"][3])
    best = {each["id"]: each["best_score"] for each in data["images"]}
    assert all(each["score"] <= best[each["image_id"]] for each in data["annotations"])
    annotations = read_coco(tmp_path / "out" / "detections.json", [tmp_path])  # as data to correct and train on
    assert len(annotations.boxes) == len(data["annotations"])
    printed = cdetr("predict", model, photos, "--json", "--threshold", threshold)
    assert json.loads(printed.stdout) == data


def test_without_objects_the_best_score_is_told(model, photos, tmp_path):
    best = {file.name: Detector.from_pretrained(model).predict(file, 0.0)[0].score for file in photos.iterdir()}
    name, score = max(best.items(), key=lambda item: item[1])
    result = cdetr("predict", model, photos, "--out", tmp_path / "out", "--threshold", score + 0.0001)
    assert result.returncode == 0
    assert f"0 objects in {COUNT} images" in result.stdout
    assert re.search(
        rf"no image has objects with a score from 0\.\d+; the best score in them is 0\.\d+ \(.*{name}\): lower --threshold",
        result.stderr,
    )
    assert f"is {int(score * 1000) / 1000:g} (" in result.stderr
    assert [each["best_score"] for each in read(tmp_path / "out")["images"]] == list(
        dict(sorted(best.items())).values()
    )
    result = cdetr("predict", model, photos, "--json", "--threshold", score)
    assert f"{COUNT - 1} of {COUNT} images have no objects" in result.stderr
    assert cdetr("predict", model, photos, "--json", "--threshold", 0).stderr == ""


def test_a_model_that_computes_nan_says_so(photos, tmp_path):
    checkpoint = randomized(load_settings("conditional-detr_tiny_shapes").model.resolved())
    nn.init.constant_(checkpoint.model.class_head.weight, 3e38)  # finite, but its products are not
    save_checkpoint(checkpoint, tmp_path / "broken")
    result = cdetr("predict", tmp_path / "broken", photos / "0.png", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "skipped: the model computes NaN or infinity for image" in result.stderr
    assert read(tmp_path / "out")["images"] == []


# --- ending early and going on ---


def test_a_malformed_url_costs_only_its_image(model, photos, tmp_path):
    result = cdetr("predict", model, "http://[bad/x.jpg", photos, "--out", tmp_path / "out")
    assert result.returncode == 2, result.stderr
    assert "skipped: " in result.stderr
    assert len(read(tmp_path / "out")["images"]) == COUNT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_keep_what_is_done(number, model, photos, tmp_path, monkeypatch):
    before = signal.getsignal(number)
    after(4, lambda: signal.raise_signal(number), monkeypatch)
    result = cdetr("predict", model, photos, "--out", tmp_path / "out")
    assert result.returncode == 1
    assert signal.getsignal(number) == before
    assert re.fullmatch(
        rf"error: interrupted: 3 of {COUNT} images are done and kept in .*detections\.jsonl; the same command goes on from there\n",
        result.stderr,
    )
    assert sorted(os.listdir(tmp_path / "out")) == ["0.jpg", "1.jpg", "2.jpg", "detections.jsonl"]
    assert len(lines(tmp_path / "out")) == 3


def test_the_same_command_goes_on(model, photos, tmp_path, monkeypatch, computed):
    with monkeypatch.context() as patch:
        after(4, lambda: signal.raise_signal(signal.SIGTERM), patch)
        cdetr("predict", model, photos, "--out", tmp_path / "out")
    computed.clear()
    result = cdetr("predict", model, photos, "--out", tmp_path / "out")
    assert result.returncode == 0
    assert computed == ["3.png", "4.png", "5.png"]
    assert f"3 of {COUNT} images are done already" in result.stderr
    cdetr("predict", model, photos, "--out", tmp_path / "whole")
    assert read(tmp_path / "out") == read(tmp_path / "whole")
    computed.clear()
    assert f"in {COUNT} images" in cdetr("predict", model, photos, "--out", tmp_path / "out").stdout
    assert computed == []


def test_printed_json_holds_what_is_done(model, photos, monkeypatch):
    after(4, lambda: signal.raise_signal(signal.SIGTERM), monkeypatch)
    result = cdetr("predict", model, photos, "--json")
    assert result.returncode == 1
    data = json.loads(result.stdout)
    assert data["info"]["complete"] is False
    assert len(data["images"]) == 3
    assert f"3 of {COUNT} images are done, and the JSON holds them" in result.stderr


def test_a_kill_at_any_moment(model, photos, tmp_path):
    """SIGKILL lets a program do nothing more. A line that it cut short is as if it were not there."""
    for i in range(300):
        shutil.copy(photos / "0.png", photos / f"x{i:03d}.png")
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "conditional_detr", "predict", str(model), str(photos), "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    deadline = time.monotonic() + 60
    while not ((out / "detections.jsonl").exists() and len(lines(out)) >= 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = lines(out)
    assert 3 <= len(done) < COUNT + 300
    assert not (out / "detections.json").exists()
    for line in done:
        with Image.open(out / line["picture"]) as picture:
            picture.load()
    file = out / "detections.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    for i in range(300):
        (photos / f"x{i:03d}.png").unlink()
    result = cdetr("predict", model, photos, "--out", out)
    assert result.returncode == 0
    assert f"{min(len(done) - 1, COUNT)} of {COUNT} images are done already" in result.stderr
    cdetr("predict", model, photos, "--out", tmp_path / "whole")
    assert read(out) == read(tmp_path / "whole")
    assert all(json.loads(line) for line in file.read_text().splitlines())


@pytest.mark.parametrize("what", ["picture", "lines", "data"])
def test_a_full_disk_keeps_what_is_done(what, model, photos, tmp_path):
    out = tmp_path / "out"
    arguments = ("predict", model, photos, "--out", out, "--threshold", 0)
    if what == "data":  # everything is done, but the data is longer than the lines
        cdetr(*arguments)
        (out / "detections.json").unlink()
    sizes = {"picture": 4000, "lines": 20_000, "data": 40_000}
    with no_room_for_files_over(sizes[what]):
        result = cdetr(*arguments)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == (2 if what == "data" else 1)
    assert "can't be written (File too large)" in result.stderr
    assert "images are done" in result.stderr
    assert {name for name in os.listdir(out) if "partial" in name or name == "detections.json"} == set()
    text = (out / "detections.jsonl").read_text()
    assert text.endswith("\n")
    if what == "lines":
        assert 0 < len(lines(out)) < COUNT
        assert f"{len(lines(out))} of {COUNT} images are done and kept" in result.stderr
    assert cdetr(*arguments).returncode == 0
    cdetr("predict", model, photos, "--out", tmp_path / "whole", "--threshold", 0)
    assert read(out) == read(tmp_path / "whole")


def test_a_folder_that_is_removed_meanwhile(model, photos, tmp_path, monkeypatch):
    after(4, lambda: shutil.rmtree(tmp_path / "out"), monkeypatch)
    result = cdetr("predict", model, photos, "--out", tmp_path / "out")
    assert result.returncode == 1
    assert re.fullmatch(
        rf"error: .*3\.jpg can't be written \(.*\): 3 of {COUNT} images are done, but .* was removed; give the same command again\n",
        result.stderr,
    )


def test_what_has_changed_is_computed_again(model, photos, tmp_path, computed):
    out = tmp_path / "out"
    cdetr("predict", model, photos, "--out", out)
    computed.clear()
    Image.open(photos / "1.png").rotate(90).save(photos / "1.png")
    (out / "4.jpg").unlink()
    shutil.copy(photos / "0.png", photos / "7.png")
    assert cdetr("predict", model, photos, "--out", out).returncode == 0
    assert computed == ["1.png", "4.png", "7.png"]
    cdetr("predict", model, photos, "--out", tmp_path / "whole")
    assert read(out) == read(tmp_path / "whole")


def test_batches_are_computed_as_a_whole(model, photos, tmp_path, monkeypatch, computed):
    """Images of a batch are padded to a common size, which changes their scores."""
    arguments = ("predict", model, photos, "--batch-size", 2, "--threshold", 0)
    with monkeypatch.context() as patch:
        after(4, lambda: signal.raise_signal(signal.SIGINT), patch)
        cdetr(*arguments, "--out", tmp_path / "out")
    assert len(lines(tmp_path / "out")) == 3
    computed.clear()
    cdetr(*arguments, "--out", tmp_path / "out")
    assert computed == ["2.png", "3.png", "4.png", "5.png"]
    cdetr(*arguments, "--out", tmp_path / "whole")
    assert read(tmp_path / "out") == read(tmp_path / "whole")


def test_other_settings_replace_finished_results_and_keep_unfinished_ones(model, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    cdetr("predict", model, photos, "--out", out)
    with monkeypatch.context() as patch:
        after(3, lambda: signal.raise_signal(signal.SIGINT), patch)
        result = cdetr("predict", model, photos, "--out", out, "--threshold", 0.25)
    assert "detections.jsonl was written with threshold 0.5; its results are replaced" in result.stderr
    assert "detections.json there is of an earlier command" in result.stderr
    assert read(out)["info"]["threshold"] == 0.5
    unfinished = (out / "detections.jsonl").read_text()
    result = cdetr("predict", model, photos, "--out", out, "--threshold", 0.75)
    assert re.search(
        r"was written with threshold 0\.25 and not finished; it is kept as .*detections-1\.jsonl", result.stderr
    )
    assert (out / "detections-1.jsonl").read_text() == unfinished
    assert read(out)["info"]["threshold"] == 0.75
    assert len(read(out)["images"]) == COUNT
    checkpoint = Detector.from_pretrained(model).checkpoint
    nn.init.normal_(checkpoint.model.class_head.bias)
    save_checkpoint(checkpoint, tmp_path / "other")
    result = cdetr("predict", tmp_path / "other", photos, "--out", out, "--threshold", 0.75)
    assert "detections.jsonl was written with another model; its results are replaced" in result.stderr


def test_images_of_the_same_name_do_not_take_each_other_s_results(model, photos, tmp_path, computed):
    (tmp_path / "others").mkdir()
    shutil.copy(photos / "3.png", tmp_path / "others" / "0.png")
    out = tmp_path / "out"
    for folder in (photos, tmp_path / "others", photos):
        computed.clear()
        cdetr("predict", model, folder, "--out", out)
    assert computed == ["0.png"]  # its picture had been replaced
    with Image.open(out / "0.jpg") as picture, Image.open(photos / "0.png") as image:
        assert picture.size == image.size


# --- files of others ---


@pytest.mark.parametrize("name", ["detections.json", "detections.jsonl", "0.jpg", "3.JPG"])
def test_files_of_others_are_never_replaced(name, model, photos, tmp_path, computed):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b'[{"image_id": 1}]')
    sentence = rf"{name} was not written by this command, or was changed since, and would be replaced; move it away, or name another folder"
    refused(cdetr("predict", model, photos, "--out", out), sentence)
    assert os.listdir(out) == [name]
    assert (out / name).read_bytes() == b'[{"image_id": 1}]'
    assert computed == []
    (out / name).unlink()
    (tmp_path / "elsewhere").write_bytes(b"mine")
    (out / name).symlink_to(tmp_path / "elsewhere")
    refused(cdetr("predict", model, photos, "--out", out), sentence)
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"
    (out / name).unlink()
    (out / "notes.txt").write_text("mine")  # in nobody's way
    assert cdetr("predict", model, photos, "--out", out).returncode == 0
    assert (out / "notes.txt").read_text() == "mine"


def test_results_that_somebody_changed_are_not_replaced(model, photos, tmp_path):
    out = tmp_path / "out"
    cdetr("predict", model, photos, "--out", out)
    with Image.open(out / "2.jpg") as picture:
        edited = picture.rotate(90)
    edited.save(out / "2.jpg")
    before = (out / "2.jpg").read_bytes()
    refused(cdetr("predict", model, photos, "--out", out), r"2\.jpg was not written by this command")
    assert (out / "2.jpg").read_bytes() == before
    refused(cdetr("predict", model, photos, "--out", out / "0.jpg"), "is not a folder")
    (out / "2.jpg").unlink()
    corrected = (out / "detections.json").read_text().replace('"three"', '"four"')
    (out / "detections.json").write_text(corrected)
    refused(cdetr("predict", model, photos, "--out", out), r"detections\.json was not written .* or was changed since")
    assert (out / "detections.json").read_text() == corrected


def test_results_of_a_newer_version_are_not_replaced(model, photos, tmp_path):
    out = tmp_path / "out"
    cdetr("predict", model, photos, "--out", out)
    file = out / "detections.json"
    file.write_text(file.read_text().replace('"version": 1', '"version": 2'))
    refused(cdetr("predict", model, photos, "--out", out), "written by a newer conditional-detr .*upgrade")


def test_two_commands_in_one_folder(model, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    second = []
    after(2, lambda: second.append(cdetr("predict", model, photos, "--out", out)), monkeypatch)
    assert cdetr("predict", model, photos, "--out", out).returncode == 0
    refused(second[0], "another command is writing into .*out; wait for its end")


# --- inputs ---


def test_what_is_no_file_is_told_and_the_rest_is_done(model, photos, tmp_path):
    os.mkfifo(photos / "pipe.jpg")
    (photos / "loop.jpg").symlink_to("loop.jpg")
    (photos / "broken.jpg").symlink_to("nothing.jpg")
    (photos / "round").symlink_to(".")
    (photos / "zero.png").symlink_to("/dev/zero")
    (photos / "sub").mkdir()
    (photos / "5.png").rename(photos / "sub" / "5.png")
    result = cdetr("predict", model, photos, photos / "pipe.jpg", "/dev/null", "--out", tmp_path / "out")
    assert result.returncode == 2
    told = {
        "pipe.jpg": "a named pipe",
        "loop.jpg": "a link that leads to itself",
        "broken.jpg": "a link to a file that does not exist",
        "round": "a link to a folder",
        "zero.png": "a device",
        "/dev/null": "a device",
    }
    skipped = [line for line in result.stderr.splitlines() if line.startswith("skipped: ")]
    assert len(skipped) == len(told)
    for name, what in told.items():
        assert any(f"{name} is {what}" in line for line in skipped), name
    assert "Traceback" not in result.stderr
    data = read(tmp_path / "out")
    assert len(data["images"]) == COUNT
    assert len(data["skipped"]) == len(told)
    everything_broken = cdetr("predict", model, photos / "pipe.jpg", photos / "broken.jpg", "--json")
    assert everything_broken.returncode == 2
    assert json.loads(everything_broken.stdout)["images"] == []


def test_folders_without_permission_are_told(model, photos, tmp_path):
    (photos / "locked").mkdir(mode=0)
    if os.access(photos / "locked", os.R_OK):
        pytest.skip("this user may read everything")
    result = cdetr("predict", model, photos, photos / "locked", "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "skipped: folder" in result.stderr
    assert "locked can't be searched; check its permissions" in result.stderr
    assert f"in {COUNT} images" in result.stdout


def test_patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "x/b.png", "x/y/c.png", "x/y/d.txt", ".hidden/e.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")
    Path("x/[1].png").write_bytes(b"")
    Path("x/round").symlink_to("..")
    Path("x/y/round").symlink_to("..")

    def found(*patterns: str) -> list[str]:
        return [str(path) for path in find_images(patterns)]

    assert found("**/*.png") == ["a.png", "x/[1].png", "x/b.png", "x/round", "x/y/c.png", "x/y/round"]
    assert found("x/**/y/*") == ["x/round", "x/y/c.png", "x/y/d.txt", "x/y/round"]
    assert found("x/*.png", "a.png") == ["x/[1].png", "x/b.png", "a.png"]
    assert found("x/[1].png") == ["x/[1].png"]
    assert found("?/y") == ["x/y/c.png", "x/y/round"]
    assert found(".hidden/*") == [".hidden/e.png"]


def test_odd_names(model, photos, tmp_path):
    names = ["\x1b[31mred\n.png", "车 👍.png", os.fsdecode(b"caf\xe9.png"), "l" * 240 + ".png", "[red]x :car:.png"]
    names += ["a.png", "A.bmp", "-x.png"]
    (tmp_path / "odd").mkdir()
    for name in names:
        shutil.copy(photos / "0.png", tmp_path / "odd" / name)
    (tmp_path / "odd" / "\x1b[2Jnone\r.jpg").write_bytes(b"")
    result = cdetr("predict", model, tmp_path / "odd", "--out", tmp_path / "out", "--threshold", 1)
    assert result.returncode == 2
    assert f"in {len(names)} images" in result.stdout
    assert r"\x1b[2Jnone\r.jpg is empty" in result.stderr
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", result.stdout + result.stderr)
    assert {Path(each["file_name"]).name for each in read(tmp_path / "out")["images"]} == set(names)
    pictures = [name for name in os.listdir(tmp_path / "out") if name.endswith(".jpg")]
    assert len(pictures) == len(names)
    assert len({name.casefold() for name in pictures}) == len(names)


def test_long_images_get_pictures(model, tmp_path):
    """A JPEG has sides of at most 65,535 pixels."""
    Image.new("RGB", (70_000, 20)).save(tmp_path / "long.png")
    result = cdetr("predict", model, tmp_path / "long.png", "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "out" / "long.jpg") as picture:
        assert picture.width == 65_500
