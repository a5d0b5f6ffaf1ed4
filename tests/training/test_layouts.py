"""The same data in two layouts trains to the same numbers."""

import json

import numpy as np
import pytest

from conditional_detr.config import load_settings
from conditional_detr.data.reading import read_split
from conditional_detr.training import starting
from tests.conftest import SHARED, needs_shared

DATA = SHARED / "data"
BCCD = ["data.categories=[RBC,WBC,Platelets]"]  # Pascal VOC has no order of its own
IMAGES = DATA / "bccd" / "voc" / "JPEGImages"
PAIRS = {
    "voc": (
        [f"data.root={DATA / 'bccd' / 'voc'}", *BCCD],
        [f"data.root={DATA / 'bccd' / 'coco'}", f"data.train_images={IMAGES}", f"data.val_images={IMAGES}"],
    ),
    "yolo": (
        [f"data.root={DATA / 'vehicles' / 'yolo'}"],
        [
            f"data.root={DATA / 'vehicles' / 'coco'}",
            f"data.train_images={DATA / 'vehicles' / 'yolo'}",
            f"data.val_images={DATA / 'vehicles' / 'yolo'}",
        ],
    ),
}
SMALL = ["data.short_sides=[64]", "data.eval_short_side=64", "data.crop=0", "train.max_steps=2", "train.log_every=1"]
CLOCK = {"seconds", "images_per_second", "data_wait"}


def settings(data: list[str], output):
    where = [f"train.output={output}", "train.name=run", "train.batch_size=8", "data.workers=0"]
    return load_settings("conditional-detr_tiny_shapes", [*data, *SMALL, *where])


@needs_shared("data/bccd")
@pytest.mark.parametrize("layout", PAIRS)
def test_metrics_are_equal(layout, tmp_path):
    runs = [starting.train(settings(data, tmp_path / str(i))).run for i, data in enumerate(PAIRS[layout])]
    lines = [[json.loads(line) for line in run.metrics.read_text().splitlines()] for run in runs]
    ours, coco = ([{k: v for k, v in line.items() if k not in CLOCK} for line in each] for each in lines)
    assert len(ours) == 3
    assert ours == coco


@needs_shared("data/bccd")
@pytest.mark.parametrize("layout", PAIRS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_annotations_are_equal(layout, split, tmp_path):
    ours, coco = (read_split(settings(data, tmp_path).data, split) for data in PAIRS[layout])
    assert ours.categories.names == coco.categories.names
    for field in ("boxes", "labels", "areas", "crowd", "usable", "sizes", "offsets"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(coco, field))
    for one, other in zip(ours.file_names, coco.file_names, strict=True):
        assert one.endswith(other) or other.endswith(one)
