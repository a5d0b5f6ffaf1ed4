"""Written in another layout and read again, data is the same; what is lost is told; nothing is left half written."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conditional_detr.config import DataSettings
from conditional_detr.data.check import read_splits
from conditional_detr.data.conversion import check_outside, write_data
from conditional_detr.data.reading import read_split
from conditional_detr.errors import DataError
from tests.conftest import SHARED, needs_shared
from tests.data.coco_data import change_annotations, picture, write_coco

DATA = SHARED / "data"
BCCD = {"root": DATA / "bccd" / "voc", "categories": ("RBC", "WBC", "Platelets")}
REAL = {
    "bccd": BCCD,
    "vehicles": {"root": DATA / "vehicles" / "yolo"},
    "coco_yolo": {"root": DATA / "coco_yolo" / "yolo"},
    "coco_mini": {"root": DATA / "coco_mini"},
}


def read(**settings):
    return read_splits(DataSettings(**settings))


def base_names(data):
    return [Path(name).name for name in data.file_names]


def in_order_of_names(data):
    return data.subset(sorted(range(len(data)), key=lambda index: Path(data.file_names[index]).name))


def assert_same(found, expected, precision=0.0, crowds=True):
    """Compare images, sizes, boxes, labels and crowds, all in order."""
    kept = slice(None) if crowds else ~expected.crowd
    assert base_names(found) == base_names(expected)
    assert (found.sizes == expected.sizes).all()
    assert (found.owners == expected.owners[kept]).all()
    assert np.abs(found.boxes - expected.boxes[kept]).max(initial=0) <= precision
    assert (found.labels == expected.labels[kept]).all()
    assert (found.crowd == expected.crowd[kept]).all()
    assert found.categories.names == expected.categories.names


@needs_shared("data/bccd")
@pytest.mark.parametrize("name", REAL)
def test_coco_files_hold_all_of_real_data(tmp_path, name):
    before = read(**REAL[name])
    write_data(before, tmp_path / "out", "coco", "link")
    after = read(root=tmp_path / "out")
    assert list(after) == list(before) == ["train", "val"]
    for split, data in before.items():
        assert_same(after[split], data)
        assert after[split].categories == data.categories
        assert (after[split].image_ids == data.image_ids).all()
        assert (after[split].areas == data.areas).all()


@needs_shared("data/bccd")
@pytest.mark.parametrize("layout", ["yolo", "voc"])
@pytest.mark.parametrize("name", REAL)
def test_real_data_returns_through_other_layouts(tmp_path, name, layout):
    before = {split: data.subset(range(min(len(data), 25))) for split, data in read(**REAL[name]).items()}
    write_data(before, tmp_path / layout, layout, "link")
    write_data(read(root=tmp_path / layout), tmp_path / "coco", "coco", "link")
    for split, data in read(root=tmp_path / "coco").items():
        expected = in_order_of_names(before[split]) if layout == "yolo" else before[split]
        assert_same(data, expected, 1e-6, crowds=layout == "voc")


@needs_shared("data/bccd")
def test_converted_voc_equals_the_coco_form_for_training(tmp_path):
    """The same images and arrays in the same order, and so the same run."""
    write_data({"val": read(**BCCD)["val"]}, tmp_path / "out", "coco", "link")
    settings = DataSettings(root=DATA / "bccd" / "coco", val_images=DATA / "bccd" / "voc" / "JPEGImages")
    data, expected = read(root=tmp_path / "out")["val"], read_split(settings, "val")
    assert_same(data, expected)
    assert data.categories == expected.categories
    assert (data.usable == expected.usable).all()
    assert data.path(7).read_bytes() == expected.path(7).read_bytes()


def test_annotations_of_any_size_are_kept_to_a_ten_thousandth_of_a_pixel(tmp_path):
    rng = np.random.default_rng(0)
    boxes = [(1, (rng.random(4) * [3000, 2000, 1000, 800]).tolist()) for _ in range(50)]
    root = write_coco(tmp_path / "a", {"train": {"a.png": boxes}}, images={"a.png": Image.new("1", (4001, 2999))})
    before = read(root=root)
    for layout in ("yolo", "voc", "coco"):
        write_data(before, tmp_path / layout, layout, "link")
        assert_same(read(root=tmp_path / layout)["train"], before["train"], 1e-4)


@pytest.mark.parametrize("layout", ["coco", "yolo", "voc"])
def test_images_without_objects_and_every_split_are_kept(tmp_path, layout):
    images = {"a.png": [], "b.png": [(1, (1, 1, 5, 5))]}
    root = write_coco(tmp_path / "a", {"train": images, "val": images, "test": images})
    write_data(read(root=root), tmp_path / "out", layout)
    found = read(root=tmp_path / "out")
    assert list(found) == ["train", "val", "test"]
    for data in found.values():
        assert data.object_counts.tolist() == [0, 1]
        assert data.categories.names == ("cat", "dog")  # one without boxes
        assert not [problem for problem in data.problems if problem.level == "warning"]


def test_held_out_images_become_a_split(tmp_path):
    root = write_coco(tmp_path / "a", {"train": {f"{i}.png": [] for i in range(10)}})
    before = read(root=root, val_fraction=0.3)
    write_data(before, tmp_path / "out", "yolo")
    after = read(root=tmp_path / "out", val="auto")
    assert [base_names(data) for data in after.values()] == [base_names(data) for data in before.values()]


def test_what_a_layout_can_not_hold_is_told(tmp_path):
    root = write_coco(
        tmp_path / "a",
        {"train": {"a.png": [(1, (1, 1, 5.5, 5)), (2, (2, 2, 3, 3)), (2, (40, 2, 3, 3))]}},
        categories={1: "cat", 90: "dog", 2: "cow"},
    )
    change_annotations(root, "train", lambda content: content["annotations"][1].update(iscrowd=1))
    change_annotations(root, "train", lambda content: content["annotations"][0].update(area=9))
    splits = read(root=root)
    told = {layout: "\n".join(write_data(splits, tmp_path / layout, layout)) for layout in ("coco", "yolo", "voc")}
    assert "segmentation" in told["coco"]
    assert len(told["coco"].splitlines()) == 1
    for part in ("ids 1 to 90 become 0 to 2", "crowds: 1", "areas of 1 objects", "1 boxes without area in their image"):
        assert part in told["yolo"]
    for part in ("ids 1 to 90 are not kept", "crowds: 1", "areas of 1 objects", "1 boxes have decimals"):
        assert part in told["voc"]
    assert read(root=tmp_path / "coco")["train"].crowd.tolist() == [False, True, False]
    assert read(root=tmp_path / "voc")["train"].crowd.tolist() == [False, True, False]
    assert len(read(root=tmp_path / "yolo")["train"].labels) == 1


@pytest.mark.parametrize("layout", ["coco", "yolo", "voc"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_turned_images_keep_their_boxes(tmp_path, layout, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    root = write_coco(tmp_path / "a", {"train": {"a.jpg": [(1, (1, 2, 9, 5))]}})
    picture(1).save(root / "train" / "a.jpg", exif=exif)
    before = read(root=root, exif="raw")
    notes = write_data(before, tmp_path / "out", layout)
    assert any("1 images keep their EXIF orientation; boxes refer to the upright images" in note for note in notes)
    assert_same(read(root=tmp_path / "out")["train"], before["train"])
    assert before["train"].boxes.tolist() != [[1, 2, 9, 5]]


def test_links_and_annotations_alone(tmp_path):
    root = write_coco(tmp_path / "a", {"train": {"a.png": [], "sub/b.png": []}})
    splits = read(root=root)
    write_data(splits, tmp_path / "copied", "coco")
    write_data(splits, tmp_path / "linked", "coco", "link")
    write_data(splits, tmp_path / "alone", "coco", "none")
    original = root / "train" / "sub" / "b.png"
    assert (tmp_path / "linked" / "train" / "sub" / "b.png").samefile(original)
    copy = tmp_path / "copied" / "train" / "sub" / "b.png"
    assert copy.read_bytes() == original.read_bytes()
    assert not copy.samefile(original)
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["annotations"]
    assert len(read(root=tmp_path / "alone", train_images=root / "train")["train"]) == 2


def test_links_are_symbolic_where_there_are_no_others(tmp_path, monkeypatch):
    def no_link(*_):
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr("os.link", no_link)
    root = write_coco(tmp_path / "a", {"train": {"a.png": []}})
    write_data(read(root=root), tmp_path / "out", "yolo", "link")
    link = tmp_path / "out" / "images" / "train" / "a.png"
    assert link.is_symlink()
    assert link.readlink() == root / "train" / "a.png"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("existed", [True, False])
def test_nothing_is_left_of_an_interrupted_conversion(tmp_path, error, existed):
    root = write_coco(tmp_path / "a", {"train": {f"{i}.png": [] for i in range(4)}})
    out = tmp_path / "out"
    if existed:
        out.mkdir()

    def interrupt(done, total):
        assert total == 4
        if done == 2:
            raise error

    with pytest.raises(type(error)):
        write_data(read(root=root), out, "coco", on_image=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == (["a", "out"] if existed else ["a"])
    assert not existed or not list(out.iterdir())


def test_only_a_new_place_outside_the_data_is_written_to(tmp_path):
    root = write_coco(tmp_path / "a", {"train": {"a.png": []}})
    splits = read(root=root)
    (tmp_path / "file").write_text("precious")
    for place in (root, tmp_path / "file", tmp_path):
        with pytest.raises(DataError, match="not an empty folder"):
            write_data(splits, place, "coco")
    settings = DataSettings(root=root, val_images=tmp_path / "file")
    for place in (root / "new", root / "x" / ".." / "new", root):
        with pytest.raises(DataError, match=f"inside the data set {root}"):
            check_outside(place, settings)
    check_outside(tmp_path / "a2", DataSettings(root=root))


def test_file_names_lead_to_no_other_place(tmp_path):
    """A file_name of a stranger's annotations can't make a file outside the new folder."""
    (tmp_path / "secret").mkdir()
    picture(0).save(tmp_path / "secret" / "x.png")
    root = write_coco(tmp_path / "data" / "a", {"train": {"a.png": [], "b.png": []}})

    def escape(content):
        content["images"][0]["file_name"] = "../../../secret/x.png"
        content["images"][1]["file_name"] = str(tmp_path / "secret" / "x.png")

    change_annotations(root, "train", escape)
    splits = read(root=root)
    assert splits["train"].path(0).resolve() == tmp_path / "secret" / "x.png"
    for layout in ("coco", "yolo", "voc"):
        write_data(splits, tmp_path / "new" / layout, layout)
        assert len(read(root=tmp_path / "new" / layout)["train"]) == 2
    outside = [path for path in tmp_path.rglob("*.png") if tmp_path / "new" not in path.parents]
    assert len(outside) == 3


def test_a_converted_set_is_complete_in_itself(tmp_path):
    root = write_coco(tmp_path / "a", {"train": {"a.png": [(2, (1, 1, 5, 5))]}})
    for layout in ("coco", "yolo", "voc"):
        write_data(read(root=root), tmp_path / "b" / layout, layout)
    shutil.rmtree(root)
    (tmp_path / "b").rename(tmp_path / "c")
    for layout in ("coco", "yolo", "voc"):
        data = read(root=tmp_path / "c" / layout)["train"]
        assert data.path(0).exists()
        assert data.boxes.tolist() == [[1, 1, 5, 5]]


def test_the_file_is_what_other_coco_readers_expect(tmp_path):
    root = write_coco(tmp_path / "a", {"train": {"a.png": [(2, (1, 1, 5.5, 5))]}})
    write_data(read(root=root), tmp_path / "out", "coco")
    from pycocotools.coco import COCO

    coco = COCO(str(tmp_path / "out" / "annotations" / "instances_train.json"))
    assert coco.getAnnIds(catIds=coco.getCatIds(catNms=["dog"])) == [1]
    assert coco.loadAnns([1])[0]["bbox"] == [1, 1, 5.5, 5]
    content = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    assert content["images"] == [{"id": 1, "file_name": "a.png", "width": 24, "height": 16}]
