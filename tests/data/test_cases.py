"""Small data sets with one fault each, as users meet them: used, told with count and example, or refused in one sentence."""

import pytest

from conditional_detr.config import DataSettings
from conditional_detr.data.check import read_checked
from conditional_detr.errors import DataError
from tests.conftest import SHARED, needs_shared

CASES = SHARED / "cases"
pytestmark = needs_shared("cases")


def checked(case: str, **settings):
    return read_checked(DataSettings(root=CASES / case, **settings), queries=20)


def kinds(data) -> dict[str, int]:
    """Return kind -> count of the problems of a split. The cases use one image twice and give no areas; that is left out."""
    return {each.kind: each.count for each in data.problems if each.kind not in ("copy", "area")}


@pytest.mark.parametrize(
    ("case", "train", "val", "objects"),
    [
        ("area-minus-1", {}, {}, 8),
        ("area-zero", {}, {}, 8),
        ("boxes-normalised", {"tiny": 8}, {"tiny": 8}, 8),
        ("category-id-as-text", {"id_as_text": 8}, {"id_as_text": 8}, 8),
        ("exif-half-turn", {"maybe_turned": 2}, {"maybe_turned": 2}, 8),
        ("ids-as-text", {"id_as_text": 10}, {"id_as_text": 10}, 8),
        ("image-id-64bit", {}, {}, 8),
        ("iscrowd-1-everywhere", {"many_crowds": 8}, {"many_crowds": 8}, 0),
        ("iscrowd-1-half", {"many_crowds": 5}, {"many_crowds": 5}, 3),
        ("one-image-without-size", {"without_size": 1}, {"without_size": 1}, 8),
        ("orphan-annotation", {"orphan": 4}, {"orphan": 4}, 4),
        ("unused-extra-category", {}, {}, 8),
        ("val-lacks-a-category", {}, {"fewer": 1}, 8),
        ("val-without-boxes", {}, {}, 8),
    ],
)
def test_what_is_found_is_told_before_training(case, train, val, objects):
    data = checked(case)
    assert (kinds(data.train), kinds(data.val)) == (train, val)
    assert data.train.usable.sum() == objects
    for problem in (*data.train.problems, *data.val.problems):
        assert str(problem).startswith(str(CASES / case))
        assert f"({problem.count}, " in str(problem)
        assert "; " in str(problem)


def test_areas_that_are_none_are_those_of_the_boxes():
    for case in ("area-minus-1", "area-zero"):
        data = checked(case).train
        assert (data.areas == data.boxes[:, 2] * data.boxes[:, 3]).all()
        assert [each.count for each in data.problems if each.kind == "area"] == [8]


def test_an_exif_turn_is_found_before_the_first_step():
    with pytest.raises(
        DataError, match=r"turned\.jpg is 96 x 64 as stored and 64 x 96 .* say 96 x 64; set data\.exif=raw"
    ):
        checked("exif-late")
    data = checked("exif-late", exif="raw").val
    assert kinds(data) == {"turned_raw": 1}
    assert data.sizes[-1].tolist() == [96, 64]


def test_images_come_from_the_folder_named_as_the_annotation_file():
    file = CASES / "same-names-in-splits" / "annotations" / "instances_test2017.json"
    assert checked("same-names-in-splits", val_annotations=file).val.folder.name == "test2017"


def test_crowds_and_missing_boxes_are_explained():
    warnings = checked("iscrowd-1-everywhere").warnings
    assert any("all training boxes of category rectangle, ellipse, triangle are crowds" in text for text in warnings)
    assert any("has no boxes: AP can't be measured" in text for text in checked("val-without-boxes").warnings)


@pytest.mark.parametrize("case", ["boxes-normalised", "exif-half-turn", "iscrowd-1-half", "orphan-annotation"])
def test_strict_refuses_what_is_otherwise_a_warning(case):
    with pytest.raises(
        DataError, match=r"data\.strict=true refuses this data: .*instances_train2017\.json: .*; "
    ) as caught:
        checked(case, strict=True)
    assert "\n" not in str(caught.value)
