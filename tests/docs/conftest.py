"""What the tests of the documents share: a folder with what their examples assume."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from conditional_detr.config import load_settings
from conditional_detr.data.shapes import write_shapes
from conditional_detr.training import starting
from tests.docs.blocks import SMALL, TINY


@pytest.fixture(scope="session")
def belongings(tmp_path_factory) -> Path:
    """A folder with what the documents assume: a data set ``mine``, runs, an image, and folders of images."""
    folder = tmp_path_factory.mktemp("documents")
    write_shapes(folder / "mine", {"train": 24, "val": 8}, seed=0)
    small = [f"{key}={value}" for key, value in SMALL.items()]
    settings = load_settings(
        TINY, [f"data.root={folder / 'mine'}", f"train.output={folder / 'runs'}", "train.steps=4", *small]
    )
    quiet = settings.model_copy(
        update={
            "train": settings.train.model_copy(update={"name": "mine"}),
            "evaluation": settings.evaluation.model_copy(update={"report": False}),
        }
    )
    starting.train(quiet)
    for name in ("detr", "conditional-detr", "conditional", "another"):
        shutil.copytree(folder / "runs" / "mine", folder / "runs" / name, ignore=shutil.ignore_patterns("state"))
    Image.open(folder / "mine" / "val2017" / "000001.png").convert("RGB").save(folder / "street.jpg")
    for name in ("photos", "more/sub"):
        (folder / name).mkdir(parents=True)
        shutil.copy(folder / "street.jpg", folder / name / "one.jpg")
        shutil.copy(folder / "mine" / "val2017" / "000002.png", folder / name / "two.png")
    return folder


@pytest.fixture
def home(belongings, tmp_path):
    """A copy of ``belongings`` for one test, removed after it: pytest keeps temporary folders for three sessions."""
    folder = tmp_path / "home"
    shutil.copytree(belongings, folder)
    yield folder
    shutil.rmtree(folder)
