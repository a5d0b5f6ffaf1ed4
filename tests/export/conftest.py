"""A small model, and its export, which is traced once because that takes half a minute."""

from dataclasses import replace
from pathlib import Path

import pytest

from conditional_detr import InputSize
from conditional_detr.export.exporting import export
from conditional_detr.record import Categories, Thresholds
from tests.checkpoints.models import randomized, small

SIZE = InputSize((96, 160))
BACKBONE = {"block": "bottleneck", "depths": [1, 2], "widths": [16, 32], "stem_width": 8}
CATEGORIES = Categories((7, 0, 90), ("x", "y", "z"))


def checkpoint(decoder: str = "conditional"):
    settings = small(decoder, BACKBONE, decoder_layers=1, encoder_layers=1)
    made = randomized(settings, CATEGORIES, SIZE)
    return replace(made, record=replace(made.record, thresholds=Thresholds(0.3, (0.2, None, 0.4))))


@pytest.fixture(scope="session")
def model():
    return checkpoint()


@pytest.fixture(scope="session")
def folder(model, tmp_path_factory) -> Path:
    """A folder exported for ONNX Runtime."""
    out = tmp_path_factory.mktemp("exports") / "folder"
    export(model, out)
    return out


@pytest.fixture
def file(folder) -> Path:
    return folder / "model.onnx"
