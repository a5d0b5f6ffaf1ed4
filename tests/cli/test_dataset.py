"""``cdetr dataset`` as a user runs it."""

import json
import re
import shlex
import shutil

import pytest
from PIL import Image

from conditional_detr.config import load_settings
from tests.cli.test_commands import cdetr, refused
from tests.data.coco_data import change_annotations, picture, write_coco

IMAGES = {f"{i}.png": [(1 + i % 2, (1, 1, 9, 9)), (1, (5, 5, 4, 4))] for i in range(5)}


@pytest.fixture
def root(tmp_path):
    return write_coco(tmp_path / "data", {"train": IMAGES, "val": {"v.png": [(2, (1, 1, 9, 9))]}})


# --- check ---


def test_check_reports_numbers_copies_and_settings(root, tmp_path):
    shutil.copy(root / "train" / "0.png", root / "train" / "4.png")
    Image.open(root / "train" / "1.png").save(root / "val" / "v.png", compress_level=0)
    result = cdetr("dataset", "check", root, "--out", tmp_path / "report")
    assert result.returncode == 0, result.stderr
    assert re.search(r"^images +5 +1$", result.stdout, re.MULTILINE)
    assert re.search(r"^ 2 +dog +2 +2 +1 +1$", result.stdout, re.MULTILINE)
    assert "equal files: 1 group, 0 in several splits" in result.stdout
    assert "images that look alike: 1 group, 1 in several splits" in result.stdout
    assert sorted(file.name for file in (tmp_path / "report").iterdir()) == ["alike.jpg", "statistics.png"]
    pasted = shlex.split(result.stdout.partition("to paste: ")[2].splitlines()[0])
    assert pasted[:3] == ["cdetr", "train", "PRESET"]
    settings = load_settings("conditional-detr_tiny_shapes", pasted[3:])
    assert settings.data.root == root
    assert settings.data.eval_short_side == 32


def test_check_in_json(root):
    change_annotations(root, "train", lambda content: content["annotations"][0].update(bbox=[900, 2, 4, 4], area=16))
    result = cdetr("dataset", "check", root, "--json", "--quick")
    assert result.returncode == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["splits"]["train"]["objects"] == 9
    assert [(each["level"], each["kind"], each["count"]) for each in record["problems"]] == [("warning", "outside", 1)]
    assert load_settings("conditional-detr_tiny_shapes", record["overrides"]).model.queries == 20


def test_check_goes_on_after_what_stops_training_and_exits_with_2(root):
    for i in range(4):
        (root / "train" / f"{i}.png").write_bytes(b"" if i else b"x")
    result = cdetr("dataset", "check", root)
    refused(result, r"error: .*4 images can't be used, such as: .*0\.png is not an image.*data\.on_error=skip")
    for i in range(4):
        assert f"{i}.png is " in result.stdout
    assert re.search(r"^images +1 +1$", result.stdout, re.MULTILINE)
    in_json = cdetr("dataset", "check", root, "--json")
    assert in_json.returncode == 2
    assert len(json.loads(in_json.stdout)["refusals"][0]["images"]) == 4
    assert cdetr("dataset", "check", root, "data.on_error=skip").returncode == 0


def test_check_limits_long_lists_but_not_in_json(tmp_path):
    names = {i: f"class {i}" for i in range(1, 130)}
    root = write_coco(tmp_path, {"train": {f"{i}.png": [] for i in range(14)}, "val": {"v.png": []}}, names)
    for i in range(13):
        (root / "train" / f"{i}.png").unlink()
    result = cdetr("dataset", "check", root)
    assert result.stdout.count("does not exist") == 11  # once in the sentence
    assert "... and 3 more (--json lists all)" in result.stdout
    assert "... and 29 more (--json lists all)" in result.stdout
    assert len(json.loads(cdetr("dataset", "check", root, "--json").stdout)["refusals"][0]["images"]) == 13


def test_check_of_one_split_tells_what_training_needs(tmp_path):
    root = write_coco(tmp_path, {"train": IMAGES})
    result = cdetr("dataset", "check", root)
    refused(result, "holds no val annotations.*data.val_fraction=0.1")
    assert re.search(r"^images +5$", result.stdout, re.MULTILINE)
    assert cdetr("dataset", "check", root, "data.val=none").returncode == 0


def test_another_setting_may_name_the_data(root):
    arguments = [f"data.train_annotations={root}/annotations/instances_train.json", f"data.train_images={root}/train"]
    result = cdetr("dataset", "check", *arguments, "data.val=none", "--quick")
    assert result.returncode == 0, result.stderr
    assert "cdetr train PRESET data.train_annotations=" in result.stdout
    refused(cdetr("dataset", "check", f"data.root={root}", f"data.root={root}"), "is given twice")
    refused(cdetr("dataset", "check", root, f"data.root={root}"), "is given twice")
    refused(cdetr("dataset", "check", ""), "data.root is empty")


# --- show ---


def test_show_draws_a_page(root, tmp_path):
    out = tmp_path / "new" / "page.png"
    result = cdetr("dataset", "show", root, out, "--count", 2, "--class", "dog", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {"picture": str(out), "images": ["1.png", "3.png"]}
    with Image.open(out) as page:
        assert page.width > 600
    assert cdetr("dataset", "show", root, tmp_path / "val.jpg", "--split", "val").stdout.startswith("1 of 1 images")


def test_show_leaves_out_damaged_images(root, tmp_path):
    picture(9).save(tmp_path / "whole.jpg")
    for name in ("1.png", "3.png"):
        (root / "train" / name).write_bytes((tmp_path / "whole.jpg").read_bytes()[:-30])
    result = cdetr("dataset", "show", root, tmp_path / "page.png")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("3 of 5 images")
    assert re.findall(r"left out: .*(\d\.png) is damaged", result.stderr) == ["1.png", "3.png"]
    result = cdetr("dataset", "show", root, tmp_path / "none.png", "--class", "dog")
    assert result.returncode == 2
    assert "none of the chosen images" in result.stderr
    assert not (tmp_path / "none.png").exists()


def test_show_replaces_a_file_only_when_asked_to(root, tmp_path):
    out = tmp_path / "mine.jpg"
    out.write_text("precious")
    refused(cdetr("dataset", "show", root, out), "mine.jpg exists; name another file, or replace it with --overwrite")
    assert out.read_text() == "precious"
    assert cdetr("dataset", "show", root, out, "--overwrite").returncode == 0
    with Image.open(out) as picture:
        assert picture.format == "JPEG"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["page.gif"], "known suffix"),
        (["page.png", "--class", "bird"], "no category 'bird'"),
        (["page.png", "--split", "test"], "no test annotations"),
        (["page.png", "model.queries=3"], "is no setting of the section data"),
        (["page.png", "data.layout=nothing"], "data.layout"),
        (["data/page.png"], "inside the data set"),
    ],
)
def test_show_refuses_in_one_sentence(root, tmp_path, arguments, sentence):
    refused(cdetr("dataset", "show", root, *arguments, cwd=tmp_path), sentence)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


# --- convert ---


def test_convert_there_and_back(root, tmp_path):
    for source, target, layout in ((root, "yolo", "yolo"), (tmp_path / "yolo" / "data.yaml", "voc", "voc")):
        result = cdetr("dataset", "convert", source, tmp_path / target, "--to", layout)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith(f"5 training and 1 validation images in {tmp_path / target}\n")
    assert (
        "note: YOLO numbers categories from 0: ids 1 to 2 become 0 to 1"
        in cdetr("dataset", "convert", root, tmp_path / "again", "--to", "yolo", "--link").stdout
    )
    result = cdetr("dataset", "convert", tmp_path / "voc", tmp_path / "coco", "--json")
    record = json.loads(result.stdout)
    assert record["splits"] == {"train": {"images": 5, "objects": 10}, "val": {"images": 1, "objects": 1}}
    before, after = (
        json.loads((place / "annotations" / "instances_train.json").read_text()) for place in (root, tmp_path / "coco")
    )
    assert after["annotations"] == before["annotations"]
    assert after["categories"] == before["categories"]


def test_convert_annotations_alone_says_how_to_read_them(root, tmp_path):
    result = cdetr("dataset", "convert", root, tmp_path / "out", "--no-images")
    hint = re.search(r"read it with: (.*)", result.stdout)
    assert hint is not None
    source, *settings = hint[1].split()
    checked = cdetr("dataset", "check", source.removeprefix("data.root="), "--quick", *settings)
    assert checked.returncode == 0, checked.stderr
    refused(cdetr("dataset", "convert", root, tmp_path / "x", "--no-images", "--link"), "contradict each other")


def test_convert_writes_to_a_new_place_only(root, tmp_path):
    refused(cdetr("dataset", "convert", root, root), "not an empty folder")
    refused(cdetr("dataset", "convert", root, root / "new"), "inside the data set")
    refused(cdetr("dataset", "convert", tmp_path / "nothing", tmp_path / "out"), "nothing does not exist")
    refused(cdetr("dataset", "convert", root, tmp_path / "out", "data.root=x"), "data.root")
    change_annotations(root, "val", lambda content: content["categories"].pop())
    assert cdetr("dataset", "convert", root, tmp_path / "out").returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


# --- split ---


def test_split_divides_every_category(tmp_path):
    root = write_coco(tmp_path / "data", {"train": {f"{i}.png": [(1 + i % 2, (1, 1, 9, 9))] for i in range(20)}})
    arguments = ["--val", 0.2, "--test", 0.1, "--link"]
    result = cdetr("dataset", "split", root, tmp_path / "out", *arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == f"14 training, 4 validation and 2 test images in {tmp_path / 'out'}"
    assert [line.split() for line in result.stdout.splitlines()[-2:]] == [
        ["cat", "7", "2", "1"],
        ["dog", "7", "2", "1"],
    ]
    assert cdetr("dataset", "check", tmp_path / "out").returncode == 0
    for seed, same in ((0, True), (1, False)):
        cdetr("dataset", "split", root, tmp_path / f"seed {seed}", *arguments, "--seed", seed)
        texts = [
            (tmp_path / name / "annotations" / "instances_val.json").read_text() for name in ("out", f"seed {seed}")
        ]
        assert (texts[0] == texts[1]) is same


def test_split_of_divided_data_is_refused(root, tmp_path):
    refused(cdetr("dataset", "split", root, tmp_path / "out"), "has a validation split already; set data.val=none")
    result = cdetr("dataset", "split", root, tmp_path / "out", "data.val=none", "--json")
    assert json.loads(result.stdout)["splits"]["val"]["images"] == 1
    for fractions in (["--val", 1], ["--val", 0], ["--val", 0.6, "--test", 0.5], ["--val", "nan"], ["--test", -0.1]):
        refused(cdetr("dataset", "split", root, tmp_path / "new", "data.val=none", *fractions), "must be fractions")
    lone = write_coco(tmp_path / "lone", {"train": {"a.png": []}}, images={"a.png": picture(0)})
    refused(cdetr("dataset", "split", lone, tmp_path / "new"), "into 2 parts: it has 1 image")
    assert not (tmp_path / "new").exists()


# --- shapes and scenes ---


@pytest.mark.parametrize(("command", "suffix"), [("shapes", "png"), ("scenes", "jpg")])
def test_generated_data_can_be_checked_and_shown(command, suffix, tmp_path):
    out = tmp_path / "new"
    result = cdetr("dataset", command, out, "--images", 3, "--val-images", 2, "--seed", 4)
    assert result.returncode == 0, result.stderr
    numbers = re.match(r"3 training and 2 validation images with (\d+) objects in ", result.stdout)
    assert numbers is not None
    assert len(list((out / "train2017").glob(f"*.{suffix}"))) == 3
    checked = json.loads(cdetr("dataset", "check", out, "--json").stdout)
    assert sum(each["objects"] for each in checked["splits"].values()) == int(numbers[1])
    assert checked["refusals"] == []
    assert cdetr("dataset", "show", out, tmp_path / "page.png").returncode == 0
    refused(cdetr("dataset", command, out), "not an empty folder")


def test_scenes_in_json_are_the_same_for_any_number_of_workers(tmp_path):
    results = []
    for workers in (0, 2):
        out = tmp_path / str(workers)
        options = ["--images", 4, "--val-images", 1, "--size", 64, "--workers", workers]
        result = cdetr("dataset", "scenes", out, *options, "--json")
        assert result.returncode == 0, result.stderr
        record = json.loads(result.stdout)
        assert record.pop("folder") == str(out)
        assert record["splits"]["train"]["images"] == 4
        results.append((record, (out / "annotations" / "instances_train2017.json").read_text()))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--size", 5], r"32 to 2048 pixels, got 5 \(here: --size\)"),
        (["--workers", -1], r"from 0 to 1,024.*got -1 \(here: --workers\)"),
        (["--images", 0], "--images"),
        (["--seed", -1], "--seed"),
    ],
)
def test_scenes_refuses_in_one_sentence(options, sentence, tmp_path):
    refused(cdetr("dataset", "scenes", tmp_path / "new", *options), sentence)
    assert not list(tmp_path.iterdir())
