"""``cdetr predict --format``: what other programs read is what the COCO data says, and nothing of others is replaced."""

import csv
import json
import re
import shutil
import sys
import weakref
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas
import pytest
import yaml
from PIL import Image

from conditional_detr.cli import formats
from conditional_detr.config import DataSettings, load_settings
from conditional_detr.data.check import read_splits
from conditional_detr.inference.formats import (
    FORMATS,
    DetectedImage,
    DetectedObject,
    DetectionSet,
    Format,
    load,
)
from conditional_detr.record import Categories
from tests.checkpoints.models import randomized, save_checkpoint
from tests.cli.test_commands import cdetr, refused

NAMES = ('a "b", c', "<x & 'y'>", "Straße 道")
IDS = (7, 0, 90)
PLACES = ("a/1.png", "b/1.png", "b/x, \"y\" & <z> 'ü'.png", "empty.png")
ALL = [argument for name in FORMATS for argument in ("--format", name)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    settings = load_settings("conditional-detr_tiny_shapes").model.resolved()
    save_checkpoint(randomized(settings, Categories(IDS, NAMES)), folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Images of awkward names, two of them with the same, and a file that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i, place in enumerate(PLACES):
        (folder / place).parent.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (60 + 9 * i, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / place)
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def out(model, photos, tmp_path_factory) -> Path:
    """All formats of the detections in the photos, in which one image has none."""
    folder = tmp_path_factory.mktemp("out") / "found"
    scored = tmp_path_factory.mktemp("scored") / "found"
    assert cdetr("predict", model, photos, "--out", scored, "--threshold", "0").returncode == 2
    best = {Path(each["file_name"]).name: each["best_score"] for each in read(scored)["images"]}
    # The image of the lowest score is left without objects.
    least = sorted(best.values())
    result = cdetr("predict", model, photos, "--out", folder, "--threshold", (least[0] + least[1]) / 2, *ALL)
    assert result.returncode == 2, result.stderr
    names = "pictures, detections.json, yolo, voc, labelstudio, cvat.xml, detections.csv and detections.parquet"
    assert f"; {names} are in {folder}" in result.stdout
    return folder


def read(folder: Path) -> dict:
    return json.loads((folder / "detections.json").read_text())


def stems(folder: Path) -> list[str]:
    """Names of the pictures, in the order of the images, without their suffix."""
    lines = [json.loads(line) for line in (folder / "detections.jsonl").read_text().splitlines()]
    return [line["picture"].removesuffix(".jpg") for line in lines if "objects" in line]


def truth(folder: Path) -> list[dict]:
    """Images of the COCO data, with corners of their objects clipped to the image."""
    data, images = read(folder), []
    for image, stem in zip(data["images"], stems(folder), strict=True):
        limits = np.array([image["width"], image["height"]] * 2)
        objects = [each for each in data["annotations"] if each["image_id"] == image["id"]]
        boxes = np.array([each["bbox"] for each in objects]).reshape(-1, 4)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).clip(0, limits)
        images.append({**image, "stem": stem, "corners": corners, "objects": objects})
    return images


def rows_of(objects: list[dict]) -> list[int]:
    return [IDS.index(each["category_id"]) for each in objects]


def test_the_data_has_what_these_tests_need(out):
    images = truth(out)
    assert sorted(bool(each["objects"]) for each in images) == [False, True, True, True]
    assert [each["stem"] for each in images][:2] == ["1", "1-2"]
    assert len(read(out)["skipped"]) == 1
    beyond = [each for each in read(out)["annotations"] if min(each["bbox"]) < 0]
    assert beyond, "a box that is clipped"


def test_every_format_follows_the_protocol():
    assert all(isinstance(load(name), Format) for name in FORMATS)


def test_categories_that_xml_can_not_tell_apart_are_refused_before_predicting(photos, tmp_path):
    settings = load_settings("conditional-detr_tiny_shapes").model.resolved()
    for names, sentence in ((("traffic light", "traffic  light"), "both named"), ((" ", "x"), "has no name")):
        save_checkpoint(randomized(settings, Categories((1, 2), names)), tmp_path / names[0])
        for name in ("voc", "labelstudio", "cvat"):
            refused(
                cdetr("predict", tmp_path / names[0], photos, "--out", tmp_path / "out", "--format", name), sentence
            )
        assert (
            cdetr("predict", tmp_path / names[0], photos, "--out", tmp_path / "out", "--format", "csv").returncode == 2
        )


def test_images_of_the_same_name_are_told(model, photos, tmp_path):
    result = cdetr("predict", model, photos, "--out", tmp_path / "out", "--format", "voc")
    assert re.search(r"names that are taken .* such as 1-2 for .*b/1\.png", result.stderr)
    tree = ElementTree.parse(tmp_path / "out" / "voc" / "Annotations" / "1-2.xml")
    assert tree.findtext("filename") == "1-2.png"


def test_a_line_with_a_category_of_another_model_is_computed_again(model, photos, tmp_path):
    arguments = ("predict", model, photos / "a", "--out", tmp_path / "out", "--threshold", 0)
    assert cdetr(*arguments).returncode == 0
    lines = tmp_path / "out" / "detections.jsonl"
    before = lines.read_text()
    lines.write_text(re.sub(r'"category_id": \d+,', '"category_id": 99,', before))
    assert lines.read_text() != before
    result = cdetr(*arguments, "--format", "csv")
    assert result.returncode == 0, result.stderr
    assert "done already" not in result.stderr
    assert set(pandas.read_csv(tmp_path / "out" / "detections.csv")["category_id"]) <= set(IDS)


def test_no_text_is_a_formula_in_a_spreadsheet(photos, tmp_path):
    settings = load_settings("conditional-detr_tiny_shapes").model.resolved()
    save_checkpoint(randomized(settings, Categories((1, 2), ("=1+1", "@x"))), tmp_path / "model")
    out = tmp_path / "out"
    cdetr(
        "predict",
        tmp_path / "model",
        photos / "a",
        "--out",
        out,
        "--threshold",
        0,
        "--format",
        "csv",
        "--format",
        "parquet",
    )
    exact = pandas.read_parquet(out / "detections.parquet")["category_name"].tolist()
    assert exact
    assert set(exact) <= {"=1+1", "@x"}
    assert pandas.read_csv(out / "detections.csv")["category_name"].tolist() == [f"'{name}" for name in exact]


# --- YOLO ---


def test_yolo_is_one_label_file_per_image(out):
    folder = out / "yolo"
    assert yaml.safe_load((folder / "data.yaml").read_text())["names"] == list(NAMES)
    assert sorted(path.stem for path in (folder / "labels").iterdir()) == sorted(stems(out))
    for image in truth(out):
        lines = (folder / "labels" / f"{image['stem']}.txt").read_text().splitlines()
        values = np.array([line.split() for line in lines], dtype=float).reshape(-1, 6)
        assert values[:, 0].tolist() == rows_of(image["objects"])
        assert ((values[:, 1:] >= 0) & (values[:, 1:] <= 1)).all()
        half, scale = values[:, 3:5] / 2, np.array([image["width"], image["height"]] * 2)
        corners = np.concatenate([values[:, 1:3] - half, values[:, 1:3] + half], axis=1) * scale
        np.testing.assert_allclose(corners, image["corners"], atol=1e-5)
        np.testing.assert_allclose(values[:, 5], [each["score"] for each in image["objects"]], atol=1e-6)


def data_set(out, photos, tmp_path, name: str, images: str) -> Path:
    """A copy of a format's folder, with the images under the names that it gives them."""
    folder = tmp_path / name
    shutil.copytree(out / name, folder)
    (folder / images).mkdir()
    for image in truth(out):
        shutil.copy(image["file_name"], folder / images / f"{image['stem']}.png")
    return folder


@pytest.mark.filterwarnings("ignore:OpenCV", "ignore:.*deprecated")
def test_supervision_reads_yolo(out, photos, tmp_path):
    supervision = pytest.importorskip("supervision")
    folder = data_set(out, photos, tmp_path, "yolo", "images")
    read_ = supervision.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml")
    )
    assert list(read_.classes) == list(NAMES)
    for image in truth(out):
        found = read_.annotations[str(folder / "images" / f"{image['stem']}.png")]
        np.testing.assert_allclose(found.xyxy, image["corners"], atol=1e-3)
        assert found.class_id.tolist() == rows_of(image["objects"])


def test_our_reader_takes_yolo_labels_without_the_scores(out, photos, tmp_path):
    folder = data_set(out, photos, tmp_path, "yolo", "images")
    for file in (folder / "labels").iterdir():
        file.write_text(re.sub(r" \S+$", "", file.read_text(), flags=re.M))
    data = read_splits(DataSettings(root=folder))["train"]
    assert data.categories.names == NAMES
    assert sorted(data.object_counts.tolist()) == sorted(len(image["objects"]) for image in truth(out))


# --- Pascal VOC ---


def test_voc_is_one_xml_file_per_image(out):
    assert (out / "voc" / "labels.txt").read_text().splitlines() == list(NAMES)
    assert sorted(path.stem for path in (out / "voc" / "Annotations").iterdir()) == sorted(stems(out))
    for image in truth(out):
        root = ElementTree.parse(out / "voc" / "Annotations" / f"{image['stem']}.xml").getroot()
        suffix = Path(image["file_name"]).suffix
        assert (
            root.findtext("filename") == f"{image['stem']}{suffix}"
        )  # numbered as the file is, where the name is taken
        assert [root.findtext(f"size/{key}") for key in ("width", "height")] == [
            str(image["width"]),
            str(image["height"]),
        ]
        assert [each.text for each in root.iterfind("object/name")] == [NAMES[i] for i in rows_of(image["objects"])]
        scores = [float(each.text) for each in root.iterfind("object/confidence")]
        np.testing.assert_allclose(scores, [each["score"] for each in image["objects"]], atol=1e-6)


def test_our_reader_takes_voc(out, photos, tmp_path):
    folder = data_set(out, photos, tmp_path, "voc", "JPEGImages")
    data = read_splits(DataSettings(root=folder, categories=NAMES, val="none"))["train"]
    for i, name in enumerate(data.file_names):
        image = next(each for each in truth(out) if each["stem"] == Path(name).stem)
        boxes = data.boxes[data.objects(i)]
        np.testing.assert_allclose(np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]), image["corners"], atol=1e-9)
        assert data.labels[data.objects(i)].tolist() == rows_of(image["objects"])


# --- Label Studio ---


def test_label_studio_imports_pre_annotations(out):
    """The rules of https://labelstud.io/guide/predictions: control names, percentages, and labels of the configuration."""
    view = ElementTree.parse(out / "labelstudio" / "config.xml").getroot()
    image_tag, control = view.find("Image"), view.find("RectangleLabels")
    assert [each.get("value") for each in control.iterfind("Label")] == list(NAMES)
    key = image_tag.get("value").removeprefix("$")
    tasks = json.loads((out / "labelstudio" / "tasks.json").read_text())
    for task, image in zip(tasks, truth(out), strict=True):
        assert set(task) == {"data", "predictions"}
        address = task["data"][key]
        assert address.startswith("/data/local-files/?d=")
        assert Path("/", unquote(address.partition("=")[2])) == Path(image["file_name"])
        (prediction,) = task["predictions"]
        assert re.fullmatch(r"conditional-detr \S+ [0-9a-f]{8}", prediction["model_version"])
        assert prediction["score"] == max((each["score"] for each in image["objects"]), default=0)
        for result, each, corners in zip(prediction["result"], image["objects"], image["corners"], strict=True):
            assert result["type"] == "rectanglelabels"
            assert (result["from_name"], result["to_name"]) == (control.get("name"), image_tag.get("name"))
            assert control.get("toName") == image_tag.get("name")
            assert (result["original_width"], result["original_height"]) == (image["width"], image["height"])
            value, scale = result["value"], np.array([image["width"], image["height"]]) / 100
            assert value["rectanglelabels"] == [each["category_name"]]
            assert result["score"] == each["score"]
            start = np.array([value["x"], value["y"]])
            end = start + np.array([value["width"], value["height"]])
            np.testing.assert_allclose(np.concatenate([start * scale, end * scale]), corners, atol=1e-9)
            assert (start >= 0).all()
            assert (end <= 100 + 1e-9).all()
    ids = [result["id"] for task in tasks for result in task["predictions"][0]["result"]]
    assert len(set(ids)) == len(ids)


# --- CVAT ---


def test_cvat_imports_annotations(out):
    """The rules of https://docs.cvat.ai/docs/dataset_management/formats/format-cvat, for images."""
    root = ElementTree.parse(out / "cvat.xml").getroot()
    assert root.tag == "annotations"
    assert [each.tag for each in root][:2] == ["version", "meta"]
    assert root.findtext("version") == "1.1"
    assert [each.text for each in root.iterfind("meta/task/labels/label/name")] == list(NAMES)
    assert {each.text for each in root.iterfind("meta/task/labels/label/attributes/attribute/name")} == {"score"}
    images = list(root.iterfind("image"))
    assert [each.get("id") for each in images] == [str(i) for i in range(len(PLACES))]
    assert [each.get("name") for each in images] == list(PLACES)
    for element, image in zip(images, truth(out), strict=True):
        assert (element.get("width"), element.get("height")) == (str(image["width"]), str(image["height"]))
        boxes = list(element.iterfind("box"))
        assert all(
            {"label", "source", "occluded", "xtl", "ytl", "xbr", "ybr", "z_order"} == set(b.keys()) for b in boxes
        )
        assert [each.get("label") for each in boxes] == [NAMES[i] for i in rows_of(image["objects"])]
        corners = [[float(each.get(key)) for key in ("xtl", "ytl", "xbr", "ybr")] for each in boxes]
        np.testing.assert_allclose(np.reshape(corners, (-1, 4)), image["corners"], atol=0.0051)


# --- tables ---


@pytest.mark.parametrize("name", ["csv", "parquet"])
def test_tables_hold_a_row_per_object(name, out):
    file = out / f"detections.{name}"
    table = pandas.read_csv(file) if name == "csv" else pandas.read_parquet(file)
    data = read(out)
    images = {each["id"]: each for each in data["images"]}
    assert len(table) == len(data["annotations"]) > 0
    for row, each in zip(table.to_dict("records"), data["annotations"], strict=True):
        image, (x, y, width, height) = images[each["image_id"]], each["bbox"]
        expected = {
            "image_id": image["id"],
            "file_name": image["file_name"],
            "image_width": image["width"],
            "image_height": image["height"],
            "category_id": each["category_id"],
            "category_name": each["category_name"],
            "score": each["score"],
            "x0": x,
            "y0": y,
            "x1": x + width,
            "y1": y + height,
        }
        assert row == pytest.approx(expected)  # old versions of pandas err in the last digit


def test_parquet_without_its_library_is_refused_before_anything_is_computed(model, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "conditional_detr.inference.formats.parquet", raising=False)
    result = cdetr("predict", model, photos, "--out", tmp_path / "out", "--format", "parquet")
    refused(result, r"pip install 'conditional-detr\[parquet\]' \(here: --format\)")
    assert not (tmp_path / "out").exists()


# --- names that not every format can hold ---


def test_names_of_bytes_and_controls(tmp_path):
    name = "caf\udce9\x01\r\n.png"
    image = DetectedImage(
        1, f"/x/{name}", "stem", name, 10, 10, [DetectedObject(0, 1, "a\x02\udcff", (1, 2, 3, 4), 0.5)]
    )
    found = DetectionSet(Categories((1,), ("a\x02\udcff",)), "model", lambda: iter([image]))
    for format_ in map(load, FORMATS):
        format_.write(tmp_path / format_.NAME, found)
    ElementTree.parse(tmp_path / "voc" / "Annotations" / "stem.xml")
    assert ElementTree.parse(tmp_path / "cvat.xml").getroot().find("image/box").get("label") == "a__"
    json.loads((tmp_path / "labelstudio" / "tasks.json").read_text())
    with (tmp_path / "detections.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["category_name"] == "a\x02\\udcff"
    assert pandas.read_parquet(tmp_path / "detections.parquet")["file_name"][0] == "/x/caf\\udce9\x01\r\n.png"


def test_urls(tmp_path):
    url = "https://example.org/some/street.jpg?x=1&y=2"
    assert formats._place(url, "") == "street.jpg"
    image = DetectedImage(1, url, "street", "street.jpg", 10, 10, [])
    load("labelstudio").write(tmp_path / "tasks", DetectionSet(Categories((1,), ("a",)), "m", lambda: iter([image])))
    (task,) = json.loads((tmp_path / "tasks" / "tasks.json").read_text())
    assert task["data"]["image"] == url


class Objects(list):
    """A list that a weak reference can refer to."""

    __hash__ = object.__hash__


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "parquet"])  # which keeps the rows of a batch
def test_memory_stays_constant(name, tmp_path):
    alive, most = weakref.WeakSet(), 0

    def images():
        nonlocal most
        for number in range(1, 40):
            objects = Objects([DetectedObject(0, 1, "a", (1.0, 2.0, 3.0, 4.0), 0.5)])
            alive.add(objects)
            yield DetectedImage(number, f"{number}.png", str(number), f"{number}.png", 10, 10, objects)
            most = max(most, len(alive))

    format_ = load(name)
    format_.write(tmp_path / format_.NAME, DetectionSet(Categories((1,), ("a",)), "m", images))
    assert 1 <= most <= 2


# --- what is never replaced ---


def test_the_same_command_replaces_its_own_files(model, photos, tmp_path):
    command = ["predict", model, photos, "--out", tmp_path / "out", *ALL]
    assert cdetr(*command, "--threshold", "0").returncode == 2
    before = (tmp_path / "out" / "detections.csv").read_bytes()
    result = cdetr(*command, "--threshold", "0.9")
    assert result.returncode == 2, result.stderr
    assert (tmp_path / "out" / "detections.csv").read_bytes() != before
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize("name", FORMATS)
def test_files_of_others_are_never_replaced(name, model, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    place = out / load(name).NAME
    place.write_text("mine")
    refused(cdetr("predict", model, photos, "--out", out, "--format", name), f"{place} was not written by this command")
    assert place.read_text() == "mine"
    assert [path.name for path in out.iterdir()] == [place.name]


def test_a_file_that_somebody_changed_or_added_is_not_replaced(model, photos, tmp_path):
    out = tmp_path / "out"
    command = ["predict", model, photos, "--out", out, "--format", "yolo", "--format", "csv"]
    assert cdetr(*command).returncode == 2
    extra = out / "yolo" / "labels" / "mine.txt"
    extra.write_text("")
    refused(cdetr(*command), "yolo was not written by this command, or was changed since")
    extra.unlink()
    assert cdetr(*command).returncode == 2
    (out / "detections.csv").write_text("mine")
    refused(cdetr(*command), r"detections\.csv was not written by this command, or was changed since")
    (out / "detections.csv").unlink()
    (out / "detections.csv").symlink_to(photos / "a" / "1.png")
    refused(cdetr(*command), r"detections\.csv was not written by this command")


def test_a_record_of_somebody_else_is_not_replaced(model, photos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for content in ("{}", "mine", '{"info": {"program": "other"}, "files": {}}'):
        (out / "formats.json").write_text(content)
        refused(
            cdetr("predict", model, photos, "--out", out, "--format", "csv"),
            r"formats\.json .*another folder with --out",
        )
        assert (out / "formats.json").read_text() == content


def test_a_kill_between_the_files_is_not_in_the_way(model, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    command = ["predict", model, photos, "--out", out, "--format", "yolo"]
    assert cdetr(*command, "--threshold", "0").returncode == 2
    plain, calls = formats._replace, []

    def killed(partial, path):
        calls.append(path)
        plain(partial, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(formats, "_replace", killed)
    assert cdetr(*command, "--threshold", "0.6").returncode == 1
    assert calls
    monkeypatch.setattr(formats, "_replace", plain)
    result = cdetr(*command, "--threshold", "0.7")
    assert result.returncode == 2, result.stderr
    assert len(list((out / "yolo" / "labels").iterdir())) == len(PLACES)


def test_a_failed_format_leaves_nothing_half_written(model, photos, tmp_path, monkeypatch):
    def full(path, found):
        path.write_text("half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(load("csv"), "write", full)
    result = cdetr("predict", model, photos, "--out", tmp_path / "out", "--format", "csv")
    assert result.returncode == 1
    assert "No space left on device" in result.stderr
    assert "goes on from there" in result.stderr
    assert not list((tmp_path / "out").glob("*csv*"))
    assert not list((tmp_path / "out").glob(".*"))


def test_mistakes_are_refused(model, photos, tmp_path):
    refused(cdetr("predict", model, photos, "--format", "yolov8", cwd=tmp_path), r"did you mean 'yolo'.*--format")
    refused(cdetr("predict", model, photos, "--json", "--format", "csv", cwd=tmp_path), "name a folder with --out")
    assert not any(tmp_path.iterdir())
    result = cdetr("predict", model, photos, "--format", "coco", "--out", tmp_path / "out")
    assert "pictures and detections.json are in" in result.stdout
    assert not (tmp_path / "out" / "formats.json").exists()
