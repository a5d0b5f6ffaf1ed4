"""The starters in the package: small, open as any checkpoint, find generated objects, and training starts from them."""

import subprocess
import sys
from pathlib import Path

import pytest

from conditional_detr import Detector
from conditional_detr.checkpoints.starters import starter_folder, starter_names
from conditional_detr.config import EvaluationSettings, load_settings
from conditional_detr.data.reading import read_split
from conditional_detr.data.shapes import write_shapes
from conditional_detr.errors import InputError
from conditional_detr.evaluation.coco import evaluate_detector
from conditional_detr.training import starting

NAMES = ("starter:lite0", "starter:tiny")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> list[str]:
    """Settings of data with one category, of images that no starter was trained on."""
    root = tmp_path_factory.mktemp("generated")
    write_shapes(root, {"train": 8, "val": 40}, seed=9)
    script = Path(__file__).parents[2] / "scripts" / "starters" / "one_category.py"
    subprocess.run([sys.executable, script, root], check=True)
    return [f"data.root={root}"]


def test_starters_are_small_and_have_a_card():
    assert starter_names() == list(NAMES)
    for name in NAMES:
        folder = starter_folder(name)
        assert sum(file.stat().st_size for file in folder.iterdir()) < 10e6
        assert "License: Apache-2.0" in (folder / "README.md").read_text()


def test_an_unknown_starter_is_told():
    with pytest.raises(
        InputError, match=r"no starter:lite \(did you mean 'starter:lite0'\?\); starters: starter:lite0, starter:tiny"
    ):
        Detector.from_pretrained("starter:lite")


@pytest.mark.parametrize("name", NAMES)
def test_starters_find_generated_objects(name, shapes):
    data = read_split(load_settings("conditional-detr_tiny_photos", shapes).data, "val")
    metrics, _ = evaluate_detector(Detector.from_pretrained(name, device="cpu"), data, EvaluationSettings(), 0)
    assert metrics.values["AP50"] > 0.9


@pytest.mark.parametrize("name", ["tiny", "lite0"])
def test_presets_for_photographs_start_from_them(name, shapes, tmp_path, caplog):
    small = [
        "data.short_sides=[96]",
        "data.eval_short_side=96",
        "train.max_steps=1",
        "train.batch_size=2",
        "data.workers=0",
    ]
    where = [*shapes, f"train.output={tmp_path}"]
    caplog.set_level("INFO")
    starting.train(load_settings(f"conditional-detr_{name}_photos", [*where, *small]))
    assert f"starting from starter:{name}: all weights are kept" in caplog.text
