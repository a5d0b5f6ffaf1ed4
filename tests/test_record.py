"""Model records: writing and reading back, in every version."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from conditional_detr.architecture import Architecture, BackboneShape
from conditional_detr.errors import CheckpointError
from conditional_detr.input_size import MAX_PIXELS, InputSize
from conditional_detr.record import VERSION, Categories, ModelRecord, Thresholds, read_record

RECORD = ModelRecord(
    Architecture(
        decoder="detr", backbone=BackboneShape(block="basic", depths=(1, 2), widths=(8, 16)), position_temperature=20
    ),
    Categories((7, 2**62), ("ä", "ä")),
    InputSize((480, 640), "fit", (480, 640), "padded-with-mask"),
)


def test_there_and_back():
    stored = read_record(json.loads(json.dumps(RECORD.to_dict())), "x")
    assert Architecture.model_validate(stored.architecture) == RECORD.architecture
    assert (stored.categories, stored.input_size) == (RECORD.categories, RECORD.input_size)


def test_thresholds_there_and_back():
    thresholds = Thresholds(0.25, (0.5, None))
    stored = read_record(json.loads(json.dumps(replace(RECORD, thresholds=thresholds).to_dict())), "x")
    assert stored.thresholds == thresholds
    assert stored.thresholds.of_rows() == (0.5, 0.25)
    assert stored.thresholds_of(RECORD.categories) == thresholds
    assert stored.thresholds_of(Categories((7, 2**62), ("a", "b"))) is None  # another program trained other categories
    assert "thresholds" not in RECORD.to_dict()  # as files without them were before


def test_needs_no_torch():
    code = "import sys, conditional_detr.record; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_what_version_0_wrote():
    own = {
        "category_ids": [3, 5],
        "category_names": ["a", "b"],
        "position_temperature": 20.0,
        "input_size": {"sides": [9, 8], "rule": "stretch", "padded": None, "boxes": "image"},
    }
    stored = read_record(own, "x")
    assert stored.architecture == {"position_temperature": 20.0}
    assert stored.categories == Categories((3, 5), ("a", "b"))
    assert stored.input_size == InputSize((9, 8), "stretch")
    assert read_record(None, "x") == read_record({}, "x")


def test_a_newer_version_is_refused():
    with pytest.raises(CheckpointError, match=r"x was written by a newer conditional-detr .* pip install --upgrade"):
        read_record({**RECORD.to_dict(), "version": VERSION + 1, "categories": 5}, "x")


@pytest.mark.parametrize(
    "change",
    [
        {"version": "1"},
        {"version": -1},
        {"version": True, "categories": {}},
        {"version": None},
        {"categories": {"ids": [1.5], "names": ["a"]}},
        {"categories": {"ids": [1, 1], "names": ["a", "b"]}},
        {"categories": {"ids": [1]}},
        {"categories": {"ids": [2**63], "names": ["a"]}},
        {"categories": 7},
        {"input_size": {"sides": [1, 2, 3], "rule": "fit", "padded": None, "boxes": "image"}},
        {"input_size": {"sides": [1, 2], "rule": "?", "padded": None, "boxes": "image"}},
        {"input_size": {"sides": [6000, 6000], "rule": "published", "padded": None, "boxes": "image"}},
        {"input_size": {"sides": [800, 10**400], "rule": "published", "padded": None, "boxes": "image"}},
        {"version": 10**5000},
        {"categories": {"ids": ["9" * 5000], "names": ["a"]}},
        {"input_size": {"sides": [0, 2], "rule": "fit", "padded": None, "boxes": "image"}},
        {"input_size": {"sides": [1, 2], "rule": "fit", "padded": [10**8, 1], "boxes": "image"}},
        {"architecture": 5},
        {"thresholds": 0.5},
        {"thresholds": {"all": 0.5}},
        {"thresholds": {"all": 0.5, "per_class": [0.1]}},
        {"thresholds": {"all": None, "per_class": [0.1, 0.1]}},
        {"thresholds": {"all": 0.5, "per_class": [0.1, "0.1"]}},
        {"thresholds": {"all": 0.5, "per_class": [0.1, 1.5]}},
        {"thresholds": {"all": float("nan"), "per_class": [0.1, 0.1]}},
        {"thresholds": {"all": 10**400, "per_class": [0.1, True]}},
        {"thresholds": {"all": 0.5, "per_class": []}, "categories": None},
    ],
)
def test_damage_is_said_in_one_sentence(change):
    with pytest.raises(CheckpointError, match="x: its model record is damaged") as caught:
        read_record({**RECORD.to_dict(), **change}, "x")
    assert len(str(caught.value)) < 400
    with pytest.raises(CheckpointError):
        read_record([1], "x")


def test_the_class_head_has_a_logit_for_no_object_with_softmax():
    assert Architecture().logits(80) == 80
    assert Architecture(decoder="detr").logits(80) == 81
    assert Architecture(decoder="detr").classes(81) == 80


def test_networks_fit_whatever_their_queries_and_dropout():
    assert Architecture().fits(Architecture(queries=7, dropout=0.5)) == []
    assert Architecture().fits(Architecture(channels=64, dilation=True)) == ["dilation", "channels"]


@pytest.mark.parametrize(
    "size",
    [
        ((800, 1333),),
        ((4096, 4096),),
        ((5792, 10**9),),  # no limit of the longer side
        ((10**9, 1333),),  # the longer side to 1333
        ((4096, 8192), "stretch"),
        ((480, 640), "fit", (4096, 4096)),
    ],
)
def test_sizes_that_people_have(size):
    InputSize(*size)


@pytest.mark.parametrize(
    "size",
    [
        ((5793, 5793),),
        ((100_000, 100_000), "transformers"),
        ((4096, 8193), "stretch"),
        ((10**6, 64), "fit"),
        ((480, 640), "fit", (100_000, 100_000)),
        ((0, 1333),),
        ((800, -1), "fit"),
    ],
)
def test_sizes_that_would_take_all_memory_are_refused(size):
    with pytest.raises(ValueError, match=f"height x width must be from 1 to {MAX_PIXELS} pixels"):
        InputSize(*size)


@pytest.mark.parametrize("rule", ["published", "transformers", "fit", "stretch"])
@pytest.mark.parametrize("image", [(1, 170_000_000), (170_000_000, 1), (2, 60_000), (1, 1), (9000, 1), (20, 8000)])
def test_no_image_is_scaled_to_many_more_pixels_than_a_usual_one(rule, image):
    height, width = InputSize((800, 1333), rule).resized(*image)
    assert min(height, width) >= 1
    assert max(height, width) <= 2 * 1333
    assert height * width <= 2 * 800 * 1333
