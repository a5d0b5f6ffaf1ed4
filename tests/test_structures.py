"""Public behavior of detections and categories."""

import json
import warnings

import pytest
import torch

import conditional_detr
from conditional_detr import Categories, Detections


@pytest.fixture
def detections() -> Detections:
    boxes = torch.tensor([[1.0, 2.0, 4.0, 8.0], [-1.0, 0.0, 2.0, 2.0]])
    return Detections(boxes, torch.tensor([0.75, 0.25]), torch.tensor([90, 17]), ["z", "m"])


def test_coco_results(detections):
    first, second = detections.to_coco(42)
    assert first == {"image_id": 42, "category_id": 90, "bbox": [1.0, 2.0, 3.0, 6.0], "score": 0.75}
    assert second["bbox"] == [-1.0, 0.0, 3.0, 2.0]


def test_threshold_keeps_the_confident(detections):
    assert detections.above(0.5).names == ["z"]
    assert len(detections.above(0.75)) == 1
    assert len(detections.above(0.0)) == 2
    assert detections.above(0.9).boxes.shape == (0, 4)


def test_filters_whatever_the_order(detections):
    backwards = detections[[1, 0]]
    assert backwards.names == ["m", "z"]
    assert backwards.above(0.5).names == ["z"]


def test_iterates_and_indexes(detections):
    first, second = detections
    assert first == ((1.0, 2.0, 4.0, 8.0), 0.75, 90, "z")
    assert detections[-1] == second
    assert detections[:1].names == ["z"]
    assert detections[detections.labels == 17].names == ["m"]
    assert detections[[]].boxes.shape == (0, 4)
    assert detections[[True, False]].names == ["z"]
    with pytest.raises(IndexError):
        _ = detections[2]


def test_reads_well(detections):
    assert repr(detections) == "Detections(2: z 0.75 [1, 2, 4, 8], m 0.25 [-1, 0, 2, 2])"
    assert repr(detections[[0] * 7]).endswith("and 2 more)")
    assert repr(detections.above(1.0)) == "Detections(none)"


def test_json(detections):
    assert json.loads(detections.to_json())[0] == {"box": [1, 2, 4, 8], "score": 0.75, "label": 90, "name": "z"}


def test_pandas(detections, monkeypatch):
    frame = detections.to_pandas()
    assert list(frame.columns) == ["x0", "y0", "x1", "y1", "score", "label", "name"]
    assert frame.iloc[1].tolist() == [-1.0, 0.0, 2.0, 2.0, 0.25, 17, "m"]
    assert len(detections.above(1.0).to_pandas()) == 0
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        detections.to_pandas()


def test_supervision(detections):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # supervision warns about OpenCV
        pytest.importorskip("supervision")
        converted = detections.to_supervision()
    assert converted.xyxy.tolist() == detections.boxes.tolist()
    assert converted.class_id.tolist() == [90, 17]
    assert converted["class_name"].tolist() == ["z", "m"]
    assert len(converted) == 2


def test_missing_extra_names_the_command(detections, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(ImportError, match=r"pip install 'conditional-detr\[draw\]'"):
        detections.to_supervision()


def test_categories():
    categories = Categories((3, 0), ("x", "y"))
    assert categories.index_of(0) == 1
    assert categories.name_of(3) == "x"
    with pytest.raises(ValueError, match="differ"):
        Categories((1, 1), ("a", "b"))
    with pytest.raises(ValueError, match="one name per id"):
        Categories((1, 2), ("a",))


def test_everything_exported_exists_and_says_what_it_is():
    for name in conditional_detr.__all__:
        assert getattr(conditional_detr, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = conditional_detr.nothing
