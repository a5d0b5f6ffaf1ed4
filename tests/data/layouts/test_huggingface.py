"""Hugging Face: metadata.jsonl and Parquet, images unpacked from Parquet, names of categories, and the hub."""

import base64
import hashlib
import http.server
import io
import json
import os
import sys
import threading
import urllib.parse
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st
from PIL import Image

from conditional_detr.config import DataSettings, settings_from
from conditional_detr.data.layouts import coco, huggingface, voc, yolo
from conditional_detr.data.layouts.parquet import Parquet
from conditional_detr.data.listing import Listing
from conditional_detr.data.reading import read_split
from conditional_detr.errors import DataError, SettingsError
from tests.conftest import SHARED, needs_shared
from tests.data.layouts import listings
from tests.data.layouts.listings import image, problems, rows, rows_of_coco, write

DATA = SHARED / "data"
OBJECTS = {"bbox": [[1, 2, 10, 20], [3, 4, 5, 6]], "categories": [1, 0]}
NAMES = ("cat", "dog")


def read(root: Path, split="train", **settings) -> Listing:
    return listings.read(huggingface, root, split, **settings)


def refused(root: Path, split="train", **settings) -> str:
    return listings.refused(huggingface, root, split, **settings)


def jsonl(folder: Path, *given: dict | str, name="metadata.jsonl") -> Path:
    """Write rows and their images. Rows without file_name get one: a.png, b.png ..."""
    lines = []
    for letter, row in zip("abcdef", given, strict=False):
        if isinstance(row, dict):
            row = {"file_name": f"{letter}.png", **row}
            image(folder / row["file_name"])
            row = json.dumps(row)
        lines.append(row)
    write(folder / name, "\n".join(lines))
    return folder


def readme(root: Path, names, key="category") -> None:
    """Write a README.md as the library datasets does."""
    features = [
        {"name": "image", "dtype": "image"},
        {"name": "objects", "sequence": [{"name": "bbox", "sequence": "float32", "length": 4}, {"name": key, "dtype": {"class_label": {"names": names}}}]},
    ]  # fmt: skip
    head = yaml.safe_dump({"license": "mit", "dataset_info": {"features": features}}, sort_keys=False)
    write(root / "README.md", f"---\n{head}---\n\n# Cats\n")


def png(color=0, size=(40, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (color, 0, 0)).save(file, "png")
    return file.getvalue()


def parquet(file: Path, *given: dict, names=None, row_group_size=2, **schema) -> Path:
    """Write rows as the library datasets does. Rows without image get one."""
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    made = [{"image": {"bytes": png(i), "path": f"{i}.png"}, "objects": OBJECTS, **row} for i, row in enumerate(given)]
    table = pyarrow.Table.from_pylist(made)
    if names is not None:
        label = {"_type": "Sequence", "feature": {"names": list(names), "_type": "ClassLabel"}}
        features = {"image": {"_type": "Image"}, "objects": {"bbox": {}, "categories": label}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=row_group_size, **schema)
    return file


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "conditional-detr" / "parquet"


# --- real data ---


@needs_shared("data/coco_yolo")
@pytest.mark.parametrize("form", ["lists", "dicts", "parquet"])
def test_coco_images_in_hugging_face_form_equal_their_coco_form(tmp_path, cache, form):
    source = DATA / "coco_yolo" / "coco" / "annotations" / "instances_val.json"
    content = json.loads(source.read_text())
    index = {each["id"]: i for i, each in enumerate(content["categories"])}
    made = []
    for each in content["images"][:12]:
        path = DATA / "coco_yolo" / "yolo" / "images" / each["file_name"]
        own = [one for one in content["annotations"] if one["image_id"] == each["id"]]
        columns = {key: [one[key] for one in own] for key in ("id", "bbox", "area", "iscrowd")}
        columns["category"] = [index[one["category_id"]] for one in own]
        objects = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        row = {"image_id": each["id"], "width": each["width"], "height": each["height"]}
        row["objects"] = columns if form == "lists" else objects
        if form == "parquet":
            row["image"] = {"bytes": path.read_bytes(), "path": path.name}
        else:
            (tmp_path / "validation").mkdir(exist_ok=True)
            (tmp_path / "validation" / path.name).symlink_to(path)
            row["file_name"] = path.name
        made.append(row)
    if form == "parquet":
        parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", *made)
    else:
        write(tmp_path / "validation" / "metadata.jsonl", "\n".join(map(json.dumps, made)))
    readme(tmp_path, [each["name"] for each in content["categories"]])
    listing = read(tmp_path, "val")
    files, objects = rows_of_coco(source)
    files = [Path(name).name for name in files[:12]]
    assert [Path(name).name[-len(files[0]) :] for name in listing.file_names] == files
    assert [row[1:] for row in rows(listing)] == [row[1:] for row in objects if Path(row[0]).name in files]
    assert list(listing.image_ids) == [each["id"] for each in content["images"][:12]]
    assert listing.sizes.tolist() == [[each["height"], each["width"]] for each in content["images"][:12]]
    assert len(listing.categories) == 80
    assert problems(listing) == {}
    assert len(read_split(DataSettings(root=tmp_path, categories=()), "val").boxes) == len(listing.boxes)


# --- metadata.jsonl ---


@pytest.mark.parametrize("parent", ["", "data"])
@pytest.mark.parametrize("val", ["validation", "valid", "val", "dev", "test"])
def test_a_folder_per_split(tmp_path, parent, val):
    jsonl(tmp_path / parent / "train", {"objects": OBJECTS}, {"objects": None})
    jsonl(tmp_path / parent / val, {"objects": {"bbox": [], "categories": []}})
    listing = read(tmp_path, categories=NAMES)
    assert rows(listing) == [("a.png", "dog", 1, 2, 10, 20), ("a.png", "cat", 3, 4, 5, 6)]
    assert listing.file_names == ["a.png", "b.png"]
    assert listing.categories.ids == (0, 1)
    assert not listing.fractions
    other = read(tmp_path, "val", categories=NAMES)
    assert other.file_names == ["a.png"]
    assert problems(other) == ({"test_split": 1} if val == "test" else {})


def test_one_file_for_all_splits(tmp_path):
    for name in ("train/a.png", "validation/b.png"):
        image(tmp_path / name)
    lines = [{"file_name": name, "objects": OBJECTS} for name in ("train/a.png", "validation/b.png")]
    write(tmp_path / "metadata.jsonl", "\n".join(map(json.dumps, lines)))
    assert read(tmp_path, categories=NAMES).file_names == ["train/a.png"]
    assert read(tmp_path, "val", categories=NAMES).file_names == ["validation/b.png"]


def test_without_splits_all_is_for_training(tmp_path):
    jsonl(tmp_path, {"objects": OBJECTS, "file_name": "cats/a.png"})
    image(tmp_path / "other.png")
    listing = read(tmp_path, categories=NAMES)
    assert listing.file_names == ["cats/a.png"]
    assert problems(listing) == {"unannotated": 1}
    assert not huggingface.recognize(tmp_path, "val")
    assert "no val split" in refused(tmp_path, "val")


@pytest.mark.parametrize("boxes", ["bbox", "bboxes", "boxes"])
@pytest.mark.parametrize("category", ["category", "categories", "category_id", "label", "labels", "class"])
def test_names_of_columns(tmp_path, boxes, category):
    lists = {boxes: OBJECTS["bbox"], category: OBJECTS["categories"], "score": [1, 2, 3]}
    dicts = [{boxes: [1, 2, 10, 20], category: 1, "note": None}, {boxes: ["3", 4.0, 5, 6], category: 0.0}]
    jsonl(tmp_path, {"objects": lists}, {"annotations": dicts})
    listing = read(tmp_path, categories=NAMES)
    assert [row[1:] for row in rows(listing)] == [("dog", 1, 2, 10, 20), ("cat", 3, 4, 5, 6)] * 2


def test_areas_crowds_and_ids(tmp_path):
    objects = {**OBJECTS, "area": [77, None], "iscrowd": [False, 1], "id": [5, 6]}
    jsonl(
        tmp_path,
        {"objects": objects, "image_id": "70", "width": 40, "height": 30},
        {"objects": [], "image_id": 3, "width": 40},
    )
    listing = read(tmp_path, categories=NAMES)
    assert listing.areas.tolist() == [77, 0]
    assert listing.crowd.tolist() == [False, True]
    assert list(listing.image_ids) == [70, 3]
    assert listing.sizes.tolist() == [[30, 40], [0, 0]]
    jsonl(tmp_path, {"objects": objects, "image_id": 3}, {"objects": [], "image_id": 3})
    assert list(read(tmp_path, categories=NAMES).image_ids) == [1, 2]


@pytest.mark.parametrize("box", [[1, 1, 0, 5], [1, 1, 5, -1]])
def test_boxes_without_area_are_counted_and_left_out(tmp_path, box):
    jsonl(tmp_path, {"objects": {"bbox": [box, [1, 2, 3, 4]], "categories": [1, 0]}})
    listing = read(tmp_path, categories=NAMES)
    assert rows(listing) == [("a.png", "cat", 1, 2, 3, 4)]
    assert problems(listing) == {"without_area": 1}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is not a JSON object on one line"),
        ("[" * 100_000, "is not a JSON object on one line"),
        ("[1]", "is [1] instead of a JSON object"),
        ({"objects": 3}, "has objects 3 instead"),
        ({"objects": [3]}, "object 0 is 3"),
        ({"text": "a cat"}, "has no objects, only file_name, text"),
        ({"objects": {"bbox": [[1, 2, 3, 4]], "categories": []}}, "different lengths (1 of bbox, 0 of categories)"),
        ({"objects": {"bbox": [[1, 2, 3]], "categories": [0]}}, "object 0 has bbox [1, 2, 3]"),
        ({"objects": {"bbox": [[1, 2, 3, float("nan")]], "categories": [0]}}, "NaN is no number in JSON"),
        ({"objects": {"bbox": [[1, 2, 3, "x"]], "categories": [0]}}, "four finite numbers"),
        ({"objects": {"bbox": [7], "categories": [0]}}, "object 0 has bbox 7"),
        ({"objects": {"categories": [0]}}, "object 0 has bbox None"),
        ({"objects": {"bbox": [[1, 2, 3, 4]]}}, "has no category"),
        ({"objects": {"bbox": [[1, 2, 3, 4]], "categories": [None]}}, "has no category"),
        ({"objects": {"bbox": [[1, 2, 3, 4]], "categories": [0.5]}}, "has no category"),
        ({"objects": {"bbox": [[1, 2, 3, 4]], "categories": [True]}}, "has no category"),
        ({"objects": {"bbox": [[1, 2, 3, 4]], "categories": [2]}}, "has category 2, but there are 2 names"),
        ({"objects": {"bbox": [[1, 2, 3, 4]], "categories": [-1]}}, "has category -1"),
        ({"objects": {"bbox": [[1, 2, 3, 4]], "categories": ["dog"]}}, "has category 'dog', but"),
        ({"objects": {"bbox": [[1, 2, 3, 4]], "categories": [0], "iscrowd": ["x"]}}, "has iscrowd 'x'"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_wrong_rows(tmp_path, line, said):
    jsonl(tmp_path / "train", {"objects": OBJECTS}, line)
    message = refused(tmp_path, categories=NAMES)
    assert said in message
    assert "metadata.jsonl:2" in message


@pytest.mark.parametrize(
    "value", ["[{}]", '{{"objects": {}}}', '{{"objects": [{}]}}', '{{"objects": [{{"bbox": {}}}]}}']
)
def test_rows_of_any_depth(tmp_path, value):
    for depth in range(300, 1100, 37):  # more than Python can read, and less
        line = value.format("[" * depth + "]" * depth)
        write(tmp_path / "train" / "metadata.jsonl", line.replace("{", '{"file_name": "a.png", ', 1))
        image(tmp_path / "train" / "a.png")
        assert "metadata.jsonl:1" in refused(tmp_path)


@pytest.mark.parametrize("name", [None, "", 3, "\0", ["a.png"], ".", "./", "/"])
def test_wrong_file_names(tmp_path, name):
    write(tmp_path / "train" / "metadata.jsonl", json.dumps({"file_name": name, "objects": OBJECTS}))
    assert "metadata.jsonl:1 has file_name" in refused(tmp_path, categories=NAMES)


def test_missing_images(tmp_path):
    jsonl(tmp_path / "train", {"objects": OBJECTS}, json.dumps({"file_name": "c.png", "objects": OBJECTS}))
    assert "1 of 2 images" in refused(tmp_path, categories=NAMES)
    image(tmp_path / "elsewhere" / "a.png")
    image(tmp_path / "elsewhere" / "c.png")
    assert len(read(tmp_path, categories=NAMES, train_images=tmp_path / "elsewhere").boxes) == 4


@pytest.mark.parametrize("content", [list(png()), base64.b64encode(png()).decode()], ids=["numbers", "text"])
def test_images_that_are_no_bytes(tmp_path, cache, content):
    file = parquet(tmp_path / "train.parquet", {"image": {"bytes": content, "path": "0.png"}}, names=["x", "y", "z"])
    assert f"{file}: row 1 has no bytes of an image in 'image'" in refused(tmp_path)


def test_blank_lines_and_a_byte_order_mark(tmp_path):
    row = json.dumps({"file_name": "a.png", "objects": OBJECTS})
    image(tmp_path / "train" / "a.png")
    write(tmp_path / "train" / "metadata.jsonl", f"\ufeff{row}\r\n\r\n")
    assert len(read(tmp_path, categories=NAMES).boxes) == 2
    write(tmp_path / "train" / "metadata.jsonl", "\n")
    assert "has no rows" in refused(tmp_path, categories=NAMES)


def test_what_is_not_hugging_face(tmp_path):
    assert not huggingface.recognize(tmp_path / "nowhere", "train")
    write(tmp_path / "train" / "metadata.csv", "file_name\n")
    write(tmp_path / "README.md", "# Cats")
    assert not huggingface.recognize(tmp_path, "train")
    jsonl(tmp_path / "train", {"objects": OBJECTS})
    assert huggingface.recognize(tmp_path, "train")
    assert not any(layout.recognize(tmp_path, "train") for layout in (coco, voc, yolo))


# --- categories ---


@pytest.mark.parametrize("names", [["cat", "dog"], {"0": "cat", "1": "dog"}, {1: "dog", 0: "cat"}], ids=str)
@pytest.mark.parametrize("key", ["category", "categories", "label"])
def test_names_in_readme(tmp_path, names, key):
    jsonl(tmp_path / "train", {"objects": {"bbox": OBJECTS["bbox"], key: [1, 0]}})
    readme(tmp_path, names, key)
    listing = read(tmp_path)
    assert listing.categories.names == NAMES
    assert listing.categories.ids == (0, 1)
    assert listing.labels.tolist() == [1, 0]
    assert problems(listing) == {}
    assert read(tmp_path, categories=NAMES).categories.names == NAMES
    assert "leave out data.categories" in refused(tmp_path, categories=("dog", "cat"))


def test_names_in_dataset_infos(tmp_path):
    jsonl(tmp_path / "train", {"objects": OBJECTS})
    label = {"names": list(NAMES), "_type": "ClassLabel"}
    infos = {
        "default": {"features": {"label": {"names": ["x"], "_type": "ClassLabel"}, "objects": [{"categories": label}]}}
    }
    write(tmp_path / "dataset_infos.json", json.dumps(infos))
    assert read(tmp_path).categories.names == NAMES
    infos["other"] = {"features": {"objects": [{"categories": {**label, "names": ["a", "b"]}}]}}
    write(tmp_path / "dataset_infos.json", json.dumps(infos))
    assert "several lists of names" in refused(tmp_path)


@pytest.mark.parametrize(
    "text", [b"\xff", b"---\n: [\n---\n", b"---\nno end", b"[" * 5000, b"---\ndataset_info: 3\n---\n"]
)
def test_descriptions_that_say_nothing(tmp_path, text):
    jsonl(tmp_path / "train", {"objects": OBJECTS})
    write(tmp_path / "README.md", text)
    write(tmp_path / "dataset_infos.json", text)
    listing = read(tmp_path)
    assert listing.categories.names == ("0", "1")
    assert problems(listing) == {"unnamed": 2}


def test_numbers_without_names_are_those_of_both_splits(tmp_path):
    jsonl(tmp_path / "train", {"objects": {"bbox": [[1, 2, 3, 4]], "categories": [7]}})
    jsonl(tmp_path / "validation", {"objects": {"bbox": [[1, 2, 3, 4]], "categories": [2]}})
    for split, label in (("train", 1), ("val", 0)):
        listing = read(tmp_path, split)
        assert listing.categories.ids == (2, 7)
        assert listing.labels.tolist() == [label]


def test_categories_as_text(tmp_path):
    jsonl(tmp_path / "train", {"objects": {"bbox": [[1, 2, 3, 4]], "categories": ["dog"]}})
    jsonl(tmp_path / "validation", {"objects": [{"bbox": [1, 2, 3, 4], "category": "cat"}]})
    for split, name in (("train", "dog"), ("val", "cat")):
        listing = read(tmp_path, split)
        assert listing.categories.names == NAMES
        assert listing.categories.ids == (1, 2)
        assert rows(listing) == [("a.png", name, 1, 2, 3, 4)]
    assert read(tmp_path, categories=("dog", "bird")).labels.tolist() == [0]
    message = refused(tmp_path, categories=("dogs",))
    assert "metadata.jsonl:1: object 0: category 'dog'" in message
    assert "did you mean 'dogs'?" in message


def test_no_objects_at_all(tmp_path):
    jsonl(tmp_path / "train", {"objects": None})
    assert "set data.categories" in refused(tmp_path)
    assert len(read(tmp_path, categories=NAMES).boxes) == 0


# --- Parquet ---


@pytest.mark.parametrize(
    ("train", "val"),
    [
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"], "data/validation-00000-of-00001.parquet"),
        (["train.parquet"], "test.parquet"),
        (["default/train/0000.parquet", "default/train/0001.parquet"], "default/validation/0000.parquet"),
    ],
)  # fmt: skip
def test_parquet_files(tmp_path, cache, train, val):
    root = tmp_path / "data set"
    for name in train:
        parquet(root / name, {}, {"objects": {"bbox": [[5, 6, 7, 8]], "categories": [0]}}, {}, names=NAMES)
    parquet(root / val, {"image": {"bytes": png(9), "path": "v.png"}}, names=NAMES)
    listing = read(root)
    assert listing.categories.names == NAMES
    assert len(listing.file_names) == 3 * len(train)
    assert [name.rpartition("/")[2] for name in listing.file_names] == [
        "0000000-0.png",
        "0000001-1.png",
        "0000002-2.png",
    ] * len(train)
    assert listing.labels.tolist() == [1, 0, 0, 1, 0] * len(train)
    assert [(listing.folder / name).read_bytes() for name in listing.file_names[:3]] == [png(0), png(1), png(2)]
    assert listing.folder == cache
    assert [name.rpartition("/")[2] for name in read(root, "val").file_names] == ["0000000-v.png"]


def test_images_are_unpacked_once(tmp_path, cache):
    file = parquet(tmp_path / "a" / "train.parquet", {}, {}, {}, {}, {}, names=NAMES)
    first = read(tmp_path / "a")
    paths = [first.folder / name for name in first.file_names]
    for path in paths:
        os.utime(path, (1, 1))
    paths[3].unlink()  # the cache may be deleted at any time, also in part
    assert read(tmp_path / "a").file_names == first.file_names
    assert [path.stat().st_mtime == 1 for path in paths] == [True, True, True, False, True]
    assert paths[3].read_bytes() == png(3)
    parquet(file, {"image": {"bytes": png(200), "path": "0.png"}}, names=NAMES)
    os.utime(file, (5, 5))
    again = read(tmp_path / "a")
    assert (again.folder / again.file_names[0]).read_bytes() == png(200)
    assert not [path for path in cache.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize(
    "path",
    [
        "../../../escape.png",
        "/etc/passwd",
        "..",
        "C:\\x\\y.png",
        ".hidden",
        "a\0b.png",
        "é" * 300,
        "",
        None,
        "a/b/c.png",
        "\n",
    ],
)
def test_names_in_parquet_stay_in_the_cache(tmp_path, cache, path):
    parquet(tmp_path / "a" / "train.parquet", {"image": {"bytes": png(), "path": path}}, names=NAMES)
    listing = read(tmp_path / "a")
    file = listing.folder / listing.file_names[0]
    assert file.resolve().parent.parent == cache.resolve()
    assert file.name.startswith("0000000")
    assert len(file.name) < 100
    assert {each.name for each in tmp_path.iterdir()} == {"a", "cache"}


def test_other_forms_of_parquet(tmp_path, cache):
    pyarrow = pytest.importorskip("pyarrow")
    for folder, row in (
        ("binary", {"image": png()}),
        ("text", {"objects": [{"bbox": [1.0, 2, 3, 4], "category": "cat"}]}),
    ):
        parquet(tmp_path / folder / "cats.parquet", row)
        assert len(read(tmp_path / folder, categories=NAMES).file_names) == 1
        assert not huggingface.recognize(tmp_path / folder, "val")
    image(tmp_path / "metadata" / "train" / "a.png")
    table = pyarrow.Table.from_pylist([{"file_name": "a.png", "objects": OBJECTS}])
    pyarrow.parquet.write_table(table, tmp_path / "metadata" / "train" / "metadata.parquet")
    assert read(tmp_path / "metadata", categories=NAMES).file_names == ["a.png"]
    jsonl(tmp_path / "metadata" / "train", {"objects": OBJECTS})
    assert "are both there" in refused(tmp_path / "metadata")


def test_configurations_are_not_mixed(tmp_path, cache):
    parquet(tmp_path / "full" / "train.parquet", {}, names=NAMES)
    parquet(tmp_path / "small" / "train.parquet", {}, names=NAMES)
    message = refused(tmp_path)
    assert str(tmp_path / "full" / "train.parquet") in message
    assert "set data.root" in message
    assert len(read(tmp_path / "small").file_names) == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"image": {"bytes": None, "path": "a.png"}}, "row 2 holds no image"),
        ({"image": {"bytes": b"", "path": "a.png"}}, "row 2 holds no image"),
        ({"image": None}, "row 2 holds no image"),
        ({"objects": {"bbox": [[1, 2, 3]], "categories": [0]}}, "row 2: object 0 has bbox [1, 2, 3]"),
        ({"objects": {"bbox": [[1, 2, 3, 4]], "categories": [None]}}, "row 2: object 0 has no category"),
    ],
)
def test_wrong_parquet_rows(tmp_path, cache, row, said):
    parquet(tmp_path / "a" / "train.parquet", {}, row, names=NAMES)
    assert said in refused(tmp_path / "a")


def test_damaged_parquet(tmp_path, cache):
    file = parquet(tmp_path / "a" / "train.parquet", {}, {}, {}, names=NAMES, use_dictionary=False, compression="none")
    whole = file.read_bytes()
    for content in (b"", b"PAR1", whole[:-20], whole[200:]):
        file.write_bytes(content)
        assert "train.parquet is not a readable Parquet file" in refused(tmp_path / "a")
    middle = bytearray(whole)
    middle[4:300] = b"\xff" * 296
    file.write_bytes(middle)
    assert "train.parquet" in refused(tmp_path / "a")
    parquet(file, {"image": 3})
    assert "has no column of images, only image, objects" in refused(tmp_path / "a", categories=NAMES)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
@pytest.mark.parametrize("name", ["metadata.jsonl", "train/metadata.jsonl", "train.parquet"])
def test_a_pipe_is_not_read(tmp_path, name):
    (tmp_path / "train").mkdir()
    os.mkfifo(tmp_path / name)
    assert tmp_path.name in refused(tmp_path)


def test_without_pyarrow(tmp_path, monkeypatch):
    write(tmp_path / "train.parquet", b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "pip install 'conditional-detr[parquet]'" in refused(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_without_rights(tmp_path, cache):
    parquet(tmp_path / "a" / "train.parquet", {}, names=NAMES)
    cache.mkdir(parents=True)
    cache.chmod(0o500)
    assert "set XDG_CACHE_HOME" in refused(tmp_path / "a")


def test_a_cache_that_is_a_file(tmp_path, cache):
    parquet(tmp_path / "a" / "train.parquet", {}, names=NAMES)
    write(tmp_path / "cache", "")
    assert "set XDG_CACHE_HOME to another folder" in refused(tmp_path / "a")


def test_only_groups_with_missing_images_are_read(tmp_path, cache, monkeypatch):
    parquet(tmp_path / "a" / "train.parquet", {}, {}, {}, {}, {}, names=NAMES)
    listing = read(tmp_path / "a")
    (listing.folder / listing.file_names[4]).unlink()
    groups: list[int] = []
    contents = Parquet._contents
    monkeypatch.setattr(
        Parquet, "_contents", lambda self, column, group: groups.append(group) or contents(self, column, group)
    )
    read(tmp_path / "a")
    assert groups == [2]


# --- the hub ---


class Hub(http.server.BaseHTTPRequestHandler):
    """The part of the hub's API that a download needs."""

    folder: Path
    commit = "c" * 40
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.asked.append(path)
        files = {
            file.relative_to(self.folder).as_posix(): file.read_bytes()
            for file in self.folder.rglob("*")
            if file.is_file()
        }
        resolved = f"/datasets/me/cats/resolve/{self.commit}/"
        if path in ("/api/datasets/me/cats/revision/main", "/api/datasets/me/cats/revision/v2"):
            self.answer({"id": "me/cats", "sha": self.commit, "siblings": [{"rfilename": name} for name in files]})
        elif path.startswith("/api/datasets/me/cats/tree/"):
            self.answer(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": digest(content)}
                    for name, content in files.items()
                ]
            )
        elif path.startswith(resolved) and path.removeprefix(resolved) in files:
            self.answer(files[path.removeprefix(resolved)])
        else:
            self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    def answer(self, content, code=200, headers=None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        fields = {
            "Content-Length": len(body),
            "ETag": f'"{digest(body)}"',
            "X-Repo-Commit": self.commit,
            **(headers or {}),
        }
        for key, value in fields.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


def digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    Hub.folder, Hub.asked = tmp_path / "published", []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    yield Hub
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("name", ["me/cats", "me/cats@v2"])
def test_a_data_set_on_the_hub(hub, cache, name):
    parquet(hub.folder / "data" / "train-00000-of-00001.parquet", {}, {}, names=NAMES)
    parquet(hub.folder / "data" / "test-00000-of-00001.parquet", {}, names=NAMES)
    write(hub.folder / "weights.bin", "not wanted")
    write(hub.folder / "cats.py", "raise SystemExit")
    data = settings_from({}, [f"data.hub={name}"]).data
    assert len(read_split(data, "train")) == 2
    assert len(read_split(data, "val")) == 1
    assert f"/api/datasets/me/cats/revision/{'v2' if '@' in name else 'main'}" in hub.asked
    assert not [path for path in hub.asked if path.endswith((".bin", ".py"))]


def test_images_on_the_hub(hub):
    jsonl(hub.folder / "train", {"objects": OBJECTS}, {"objects": OBJECTS})
    readme(hub.folder, list(NAMES), "categories")
    assert read_split(DataSettings(hub="me/cats"), "train").categories.names == NAMES


def test_what_is_not_on_the_hub(hub):
    with pytest.raises(
        DataError, match=r"data.hub 'me/dogs' can't be downloaded .*; check the name and the network"
    ) as caught:
        read_split(DataSettings(hub="me/dogs"), "train")
    assert "\n" not in str(caught.value)


def test_without_network(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(DataError, match="check the name and the network") as caught:
        read_split(DataSettings(hub="me/cats"), "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "a/b/c", "../x", "https://huggingface.co/datasets/me/cats", "me/cats@", "me cats"]
)
def test_names_that_no_data_set_has(name):
    with pytest.raises(SettingsError, match="hub needs the id of a data set"):
        settings_from({}, [f"data.hub={name}"])
    with pytest.raises(SettingsError, match="leave out one of them"):
        settings_from({}, ["data.hub=me/cats", "data.root=x"])


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["bbox", "category", "iscrowd", "area"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@given(
    content=st.one_of(
        st.binary(max_size=30),
        st.fixed_dictionaries({"objects": VALUES}).map(lambda row: json.dumps({"file_name": "a.png", **row}).encode()),
    )
)
@limits(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_line_is_read_or_refused_in_a_sentence(tmp_path, content):
    if not (tmp_path / "train").exists():
        image(tmp_path / "train" / "a.png")
    write(tmp_path / "train" / "metadata.jsonl", content)
    try:
        listing = huggingface.read(DataSettings(root=tmp_path), "train")
    except DataError as error:
        message = str(error)
    else:
        message = ""
        assert len(listing.boxes) == len(listing.owners) == len(listing.labels)
    assert "\n" not in message
