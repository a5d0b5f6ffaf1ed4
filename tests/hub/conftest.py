"""A stand-in for the hub, and a run to upload."""

import shutil

import pytest
from huggingface_hub import constants
from PIL import Image

from conditional_detr.config import load_settings
from conditional_detr.training import starting
from tests.hub.stand_in import TOKEN, running
from tests.training.test_loop import changed


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The stand-in, to which huggingface_hub is directed with a valid token and an empty cache."""
    with running() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub
        assert not hub.unknown


@pytest.fixture(scope="session")
def trained(shapes_root, tmp_path_factory):
    """A run of two steps with everything that a run folder holds."""
    root = tmp_path_factory.mktemp("secret-place") / "my-shapes"
    shutil.copytree(shapes_root, root)
    settings = load_settings(
        "conditional-detr_tiny_shapes",
        [
            f"data.root={root}",
            "train.max_steps=2",
            "data.workers=0",
            "train.lr=2e-4",
            "model.dropout=0.05",
            "evaluation.report=false",
        ],
    )
    output = tmp_path_factory.mktemp("private-runs")
    run = starting.train(changed(settings, train={"output": output, "name": "run"})).run
    run.report.mkdir()  # a report takes longer than such a run; its names are those of evaluation/report/folder.py
    for name in ("curves.png", "confusion.png", "errors.png", "worst-01.jpg"):
        Image.new("RGB", (4, 4)).save(run.report / name)
    (run.report / "report.json").write_text(f'{{"annotations": "{root}"}}')
    return run.path
