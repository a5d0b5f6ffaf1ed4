"""Names that XML, YAML and lists must escape, boxes beyond their image, and names of image files."""

import re
from xml.etree import ElementTree

import pytest
import yaml
from PIL import Image

from conditional_detr.config import DataSettings
from conditional_detr.data.check import read_splits
from conditional_detr.data.conversion import write_data
from conditional_detr.data.writers import WRITERS, Writer, load
from conditional_detr.data.writers.names import flat_names, tree_names
from conditional_detr.errors import DataError
from tests.data.coco_data import change_annotations, write_coco

NAMES = [
    "a < b & c > d",
    "key: value",
    "# no comment",
    "'single' \"double\"",
    "yes",
    "1",
    "null",
    "0x10",
    "1e3",
    "~",
    "雪 ünï 🐕",
]
NAMES += [
    "- item",
    "[a, b]",
    "{a}",
    "%x",
    "@x",
    "\\n",
    "a,b",
    "true",
    "2024-01-01",
    "<!-- x -->",
    "]]>",
    "&amp;",
    "C:\\x",
    "*x",
]


def read(root, **settings):
    return read_splits(DataSettings(root=root, **settings))


def with_names(root, names):
    boxes = [(id_, (1, 1, 3 + id_ / 10, 4)) for id_ in range(1, len(names) + 1)]
    return write_coco(root, {"train": {"a.png": boxes}}, categories=dict(enumerate(names, 1)))


def test_every_writer_follows_the_protocol():
    assert all(isinstance(load(name), Writer) for name in WRITERS)


@pytest.mark.parametrize("layout", WRITERS)
def test_names_of_categories_are_escaped(tmp_path, layout):
    before = read(with_names(tmp_path / "a", NAMES))["train"]
    notes = write_data({"train": before}, tmp_path / "out", layout)
    after = read(tmp_path / "out")["train"]
    assert after.categories.names == tuple(NAMES)
    assert (after.labels == before.labels).all()
    assert not any("changed for XML" in note for note in notes)


def test_other_readers_see_the_same_names(tmp_path):
    splits = read(with_names(tmp_path / "a", NAMES))
    write_data(splits, tmp_path / "yolo", "yolo")
    assert yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())["names"] == NAMES
    write_data(splits, tmp_path / "voc", "voc")
    tree = ElementTree.parse(tmp_path / "voc" / "Annotations" / "a.xml")
    assert [each.text for each in tree.iterfind("object/name")] == NAMES


def test_yolo_keeps_spaces_around_names_and_pascal_voc_tells_that_it_can_not(tmp_path):
    names = [" cat ", "big\tdog", "control \x01 \x85", "line\nbreak"]
    splits = read(with_names(tmp_path / "a", names))
    write_data(splits, tmp_path / "yolo", "yolo")
    assert read(tmp_path / "yolo")["train"].categories.names == tuple(names)
    notes = write_data(splits, tmp_path / "voc", "voc")
    assert any("4 names of categories are changed for XML, such as ' cat ' as 'cat'" in note for note in notes)
    assert read(tmp_path / "voc")["train"].categories.names == ("cat", "big dog", "control _", "line break")


def test_pascal_voc_refuses_categories_that_it_can_not_tell_apart(tmp_path):
    splits = read(with_names(tmp_path / "a", ["cat", "dog", "cat "]))
    with pytest.raises(DataError, match=r"categories 1 and 3 are both named 'cat' in Pascal VOC"):
        write_data(splits, tmp_path / "out", "voc")
    assert not (tmp_path / "out").exists()
    write_data(splits, tmp_path / "yolo", "yolo")


def test_boxes_beyond_their_image(tmp_path):
    """COCO and Pascal VOC keep them; YOLO keeps what its tools take, clips the others, and tells that."""
    boxes = [(-2, 1, 5, 5), (20, 1, 10, 5), (-30, -30, 90, 90), (1, 1, 23.5, 14), (-8, 2, 10, 4)]
    root = write_coco(tmp_path / "a", {"train": {"a.png": [(1, box) for box in boxes]}})
    splits = read(root)
    for layout in ("coco", "voc"):
        write_data(splits, tmp_path / layout, layout)
        assert read(tmp_path / layout)["train"].boxes.tolist() == [list(box) for box in boxes]
    notes = write_data(splits, tmp_path / "yolo", "yolo")
    assert any("3 boxes reach so far beyond" in note for note in notes)
    clipped = [[-2, 1, 5, 5], [20, 1, 4, 5], [0, 0, 24, 16], [1, 1, 23.5, 14], [0, 2, 2, 4]]
    assert read(tmp_path / "yolo")["train"].boxes.tolist() == clipped
    lines = (tmp_path / "yolo" / "labels" / "train" / "a.txt").read_text().splitlines()
    assert all(0 <= float(value) <= 1 for line in lines for value in line.split()[1:])


def test_whole_corners_are_written_as_whole_numbers(tmp_path):
    root = write_coco(tmp_path / "a", {"train": {"a.png": [(1, (1, 2, 3, 4)), (1, (1.5, 2, 3, 4))]}})
    write_data(read(root), tmp_path / "out", "voc")
    text = (tmp_path / "out" / "Annotations" / "a.xml").read_text()
    assert re.findall(r"<x(?:min|max)>(.*?)<", text) == ["1", "4", "1.5", "4.5"]


# --- names of image files ---


def named(root, splits):
    """Annotations of images with these names, which are written as PNG files whatever their suffix."""
    write_coco(root, {split: {f"{i}.png": [] for i in range(len(names))} for split, names in splits.items()})
    for split, names in splits.items():
        for i, name in enumerate(names):
            (root / split / name).parent.mkdir(parents=True, exist_ok=True)
            (root / split / f"{i}.png").rename(root / split / name)

        def rename(content, names=names):
            for image, name in zip(content["images"], names, strict=True):
                image["file_name"] = name

        change_annotations(root, split, rename)
    return read(root)


AWKWARD = [
    "a.png",
    "a.jpg",
    "A.PNG",
    "x/b.png",
    "y/b.png",
    "c d.png",
    "e -1.png",
    ".f.png",
    "g",
    "h.ppm.0001",
    "ü.png",
    "u\u0308.png",
]
AWKWARD += ["i\nj.png", "images/k.png", " l .png", "m.jpg.png", "labels/n.png", "'o\"<&>.png", "p;q:r.png", "#s.png"]


@pytest.mark.parametrize("layout", WRITERS)
def test_awkward_file_names_are_found_again(tmp_path, layout):
    before = named(tmp_path / "a", {"train": AWKWARD, "val": AWKWARD[:3]})
    notes = write_data(before, tmp_path / "out", layout)
    after = read(tmp_path / "out")
    for split, data in before.items():
        assert len(after[split]) == len(data)
        contents = [data.path(i).read_bytes() for i in range(len(data))]
        found = [after[split].path(i).read_bytes() for i in range(len(data))]
        assert sorted(found) == sorted(contents)
        if layout != "yolo":  # which has the order of the names
            assert found == contents
    assert any("another name or place" in note for note in notes)
    written = [
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    ]
    assert len({name.casefold() for name in written}) == len(written)


def test_names_stay_where_they_can(tmp_path):
    splits = named(tmp_path, {"train": ["a.png", "sub/b.png", "c.JPG"], "val": ["a.png", "d.png"]})
    assert tree_names(splits) == {"train": ["a.png", "sub/b.png", "c.JPG"], "val": ["a.png", "d.png"]}
    assert flat_names(splits, shared=False) == {"train": ["a.png", "b.png", "c.JPG"], "val": ["a.png", "d.png"]}
    assert flat_names(splits, shared=True) == {
        "train": ["train_a.png", "b.png", "c.JPG"],
        "val": ["val_a.png", "d.png"],
    }


def test_names_that_collide_are_numbered(tmp_path):
    splits = named(tmp_path, {"train": ["a.png", "a.jpg", "x/b.png", "x_b.png", "y/b.png", "A.png"]})
    assert flat_names(splits, shared=False)["train"] == [
        "a.png",
        "a-2.jpg",
        "x_b.png",
        "x_b-2.png",
        "y_b.png",
        "A-3.png",
    ]
    assert tree_names(splits)["train"] == ["a.png", "a.jpg", "x/b.png", "x_b.png", "y/b.png", "A-2.png"]


@pytest.mark.parametrize("layout", WRITERS)
def test_an_image_that_is_listed_twice_stays_listed_twice(tmp_path, layout):
    root = write_coco(tmp_path / "a", {"train": {"a.png": [(1, (1, 1, 2, 2))], "b.png": [(2, (3, 3, 4, 4))]}})
    change_annotations(root, "train", lambda content: content["images"][1].update(file_name="a.png"))
    write_data(read(root), tmp_path / "out", layout)
    assert sorted(read(tmp_path / "out")["train"].boxes.tolist()) == [[1, 1, 2, 2], [3, 3, 4, 4]]


def test_files_without_suffix_get_that_of_their_content(tmp_path):
    root = write_coco(tmp_path / "a", {"train": {"a.jpg": [], "b.webp": []}})
    (root / "train" / "a.jpg").rename(root / "train" / "a.v2")
    Image.open(root / "train" / "b.webp").save(root / "train" / "b", "GIF")

    def rename(content):
        content["images"][0]["file_name"], content["images"][1]["file_name"] = "a.v2", "b"

    change_annotations(root, "train", rename)
    assert flat_names(read(root), shared=False)["train"] == ["a.v2.jpeg", "b.gif"]
