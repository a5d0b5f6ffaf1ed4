"""The check of a data set finds everything, and goes on after what stops training."""

import json
import shutil

import pytest
from PIL import Image

from conditional_detr.config import DataSettings
from conditional_detr.data.inspection import inspect
from tests.data.coco_data import change_annotations, picture, write_coco


def images(count, boxes=((1, (1, 1, 9, 9)), (2, (5, 5, 4, 4)))):
    return {f"{i}.png": boxes for i in range(count)}


def kinds(found):
    return [(each.kind, each.count) for each in found.problems]


def test_a_good_data_set_has_no_faults(tmp_path):
    root = write_coco(tmp_path, {"train": images(3), "val": images(2)})
    found = inspect(DataSettings(root=root))
    assert (found.refusals, found.problems, found.warnings, found.equal, found.alike) == ([], (), [], [], [])
    assert list(found.splits) == ["train", "val"]
    assert found.suggestions
    record = json.loads(json.dumps(found.to_dict()))
    assert record["splits"]["val"]["images"] == 2
    assert record["suggestions"]["data.eval_short_side"] == 32


def test_every_unusable_image_is_named_and_the_others_are_counted(tmp_path):
    train = {**images(5), "cut.jpg": images(1)["0.png"]}
    root = write_coco(tmp_path, {"train": train, "val": images(3)})
    (root / "train" / "0.png").unlink()
    (root / "train" / "1.png").write_bytes(b"")
    picture(50, 30, 10).save(root / "train" / "2.png")
    (root / "train" / "cut.jpg").write_bytes((root / "train" / "cut.jpg").read_bytes()[:-30])
    (root / "val" / "2.png").write_bytes(b"no image")
    found = inspect(DataSettings(root=root))
    text = "\n".join(image for refusal in found.refusals for image in refusal.images)
    for part in (
        "train/0.png does not exist",
        "train/1.png is empty",
        "train/2.png is 30 x 10, but the annotations say 24 x 16",
        "train/cut.jpg is damaged",
        "val/2.png is not an image",
    ):
        assert part in text
    assert len(text.splitlines()) == len(found.refusals) == 5
    assert all("data.on_error=skip" in refusal.sentence for refusal in found.refusals)
    assert [len(data) for data in found.splits.values()] == [3, 2]  # the damaged one was found later
    assert found.problems == ()
    assert found.statistics["train"].objects == 6

    skipping = inspect(DataSettings(root=root, on_error="skip"))
    assert not skipping.refusals
    assert sorted(kinds(skipping)) == [
        ("missing", 1),
        ("unreadable", 1),
        ("unreadable", 1),
        ("unreadable", 1),
        ("wrong_size", 1),
    ]
    assert not inspect(DataSettings(root=root), quick=True).refusals[-1].sentence.count("damaged")


def test_a_refused_split_does_not_hide_the_other(tmp_path):
    root = write_coco(tmp_path, {"train": images(2), "val": images(2), "test": images(1)})
    change_annotations(root, "train", lambda content: content["annotations"][0].update(bbox=[1, 2]))
    found = inspect(DataSettings(root=root))
    assert "four finite numbers" in found.refusals[0].sentence
    assert list(found.splits) == ["val", "test"]
    assert found.suggestions == []


def test_what_training_would_refuse_is_refused(tmp_path):
    root = write_coco(tmp_path, {"train": images(2)})
    assert ["data.val_fraction" in refusal.sentence for refusal in inspect(DataSettings(root=root)).refusals] == [True]
    assert not inspect(DataSettings(root=root, val="none")).refusals
    divided = inspect(DataSettings(root=root, val_fraction=0.5))
    assert not divided.refusals
    assert [len(data) for data in divided.splits.values()] == [1, 1]
    nothing = inspect(DataSettings(root=tmp_path / "nothing"))
    assert "does not exist" in nothing.refusals[0].sentence
    assert not nothing.splits


def test_strict_refuses_warnings(tmp_path):
    root = write_coco(tmp_path, {"train": images(2), "val": images(2)})
    change_annotations(root, "train", lambda content: content["annotations"][0].update(bbox=[900, 2, 4, 4], area=16))
    assert kinds(inspect(DataSettings(root=root))) == [("outside", 1)]
    assert "data.strict=true" in inspect(DataSettings(root=root, strict=True)).refusals[0].sentence


def test_categories_that_differ_are_told(tmp_path):
    root = write_coco(tmp_path, {"train": images(2), "val": images(2), "test": images(1)})
    change_annotations(root, "val", lambda content: content["categories"][0].update(name="bird"))
    change_annotations(root, "test", lambda content: content["categories"][0].update(name="fish"))
    found = inspect(DataSettings(root=root))
    assert [refusal.sentence.count("category 'bird'") for refusal in found.refusals] == [1]
    assert any("category 'fish'" in warning for warning in found.warnings)


def test_copies_within_and_across_splits(tmp_path):
    root = write_coco(tmp_path, {"train": images(4), "val": images(3)})
    shutil.copy(root / "train" / "0.png", root / "train" / "3.png")
    shutil.copy(root / "train" / "0.png", root / "val" / "0.png")
    Image.open(root / "train" / "1.png").save(root / "val" / "1.png", compress_level=0)
    found = inspect(DataSettings(root=root))
    assert [[(each.split, each.path.name) for each in group] for group in found.equal] == [
        [("train", "0.png"), ("train", "3.png"), ("val", "0.png")]
    ]
    assert [[(each.split, each.path.name) for each in group] for group in found.alike] == [
        [("train", "1.png"), ("val", "1.png")]
    ]
    assert kinds(found) == [("copy", 1)]
    assert inspect(DataSettings(root=root), quick=True).alike == []


def test_a_test_split_in_the_place_of_validation_is_read_once(tmp_path):
    for split in ("train", "test"):
        for part in ("images", "labels"):
            (tmp_path / split / part).mkdir(parents=True)
        picture(len(split)).save(tmp_path / split / "images" / "a.png")
        (tmp_path / split / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("train: train/images\ntest: test/images\nnames: [cat]\n")
    found = inspect(DataSettings(root=tmp_path))
    assert list(found.splits) == ["train", "val"]
    assert kinds(found) == [("test_split", 1)]


@pytest.mark.parametrize("quick", [True, False])
def test_progress_counts_headers_and_images(tmp_path, quick):
    root = write_coco(tmp_path, {"train": images(3), "val": images(2)})
    headers, decoded = [], []
    inspect(
        DataSettings(root=root),
        quick,
        lambda *numbers: headers.append(numbers),
        lambda *numbers: decoded.append(numbers),
    )
    assert headers == [(3, 3), (2, 2)]
    assert decoded == ([] if quick else [(5, 5)])
