"""What grows in families takes one module and one entry: a backbone, a checkpoint format, a data layout and a runtime."""

import json
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from conditional_detr import Detector, architecture
from conditional_detr.checkpoints import formats
from conditional_detr.checkpoints.checkpoint import Checkpoint, Parsed, Written
from conditional_detr.checkpoints.conversion import convert
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.config import ModelSettings
from conditional_detr.data import layouts, reading
from conditional_detr.data.listing import Listing
from conditional_detr.inference.pipeline import Pipeline
from conditional_detr.input_size import InputSize
from conditional_detr.model.backbones import Backbone
from conditional_detr.model.network import build_model
from conditional_detr.record import Categories, ModelRecord
from conditional_detr.structures import Outputs
from conditional_detr.training import starting
from tests.checkpoints.models import SMALL, randomized, save_checkpoint, small
from tests.training.test_loop import changed


def module(monkeypatch, package: str, name: str, **contents) -> None:
    """Make ``package.name`` importable, as a file of that name would be."""
    made = types.ModuleType(f"{package}.{name}")
    vars(made).update(contents)
    monkeypatch.setitem(sys.modules, made.__name__, made)


class Patches(Backbone):
    """A backbone of one convolution."""

    norm_frozen = True
    gradient_checkpointing = False

    def __init__(self) -> None:
        super().__init__()
        self.channels = 24
        self.patchify = nn.Conv2d(3, 24, 16, stride=16)

    def freeze(self, stages: int) -> None:
        self.patchify.requires_grad_(stages < 0)

    def fused(self) -> nn.Module:
        return self

    def forward(self, pixels):
        return self.patchify(pixels).relu()


@pytest.fixture
def patches(monkeypatch):
    monkeypatch.setitem(architecture.BACKBONES, "patches", ("patches16",))
    module(
        monkeypatch,
        "conditional_detr.model.backbones",
        "patches",
        IMAGENET={},
        TIMM={"patches16": ("patches16", 4)},
        build=lambda architecture, *, norm_frozen: Patches(),
        named=lambda name, naming: f"stem.{name}" if naming == "timm" else name,
        ours=lambda name, naming: name.removeprefix("stem.") if "patchify" in name else None,
        imagenet_anchors=set,
        from_imagenet=lambda values, backbone: values,
        recognize=lambda values: "patches16" if "patchify.weight" in values else None,
        to_transformers=lambda backbone: None,
        from_transformers=lambda config: None,
    )


def test_a_backbone_family(patches, quick_run, tmp_path):
    """It builds, trains, is saved with timm's names, opens as the same, and predicts on the fast path."""
    model = {"backbone": "patches16", "init_from": None}
    run = starting.train(changed(quick_run, model=model))
    config = json.loads((run.run.best_model / "config.json").read_text())
    assert (config["use_timm_backbone"], config["backbone"]) == (True, "patches16")
    detector = Detector.from_pretrained(run.run.path, device="cpu")
    assert "patches16" in repr(detector)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8))
    plain = detector.predict(image, 0.0)
    detector.save_pretrained(tmp_path / "again")
    for other in (Detector.from_pretrained(tmp_path / "again", device="cpu"), detector.optimize()):
        torch.testing.assert_close(other.predict(image, 0.0).scores, plain.scores)


def test_a_checkpoint_format(monkeypatch, tmp_path):
    def write(checkpoint: Checkpoint, out, timm_backbone=None) -> Written:
        out.mkdir()
        (out / "mine.json").write_text(json.dumps(checkpoint.record.to_dict()))
        return save_checkpoint(checkpoint, out / "inside")

    def read(given) -> Parsed:
        assert (given.path / "mine.json").is_file()
        return formats.load("huggingface").read(given._replace(path=given.path / "inside"))

    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, "mine"))
    for user in ("conversion", "folders", "state"):
        monkeypatch.setattr(f"conditional_detr.checkpoints.{user}.FORMATS", formats.FORMATS)
    module(
        monkeypatch,
        "conditional_detr.checkpoints.formats",
        "mine",
        LAYOUTS=(),
        MARKER="mine.json",
        read=read,
        write=write,
    )
    original = randomized(small())
    convert(original, tmp_path / "out", "mine")
    opened = open_checkpoint(tmp_path / "out")
    assert opened.record == original.record
    for name, value in original.model.state_dict().items():
        assert torch.equal(opened.model.state_dict()[name], value)


def test_a_data_layout(monkeypatch, quick_run, shapes_root, tmp_path):
    """Rows of text, which train and evaluate."""
    coco = layouts.load("coco")

    def read(settings, split) -> Listing:
        images = sorted((settings.root / split).iterdir())
        rows = [line.split() for line in (settings.root / f"{split}.txt").read_text().splitlines()]
        return Listing(
            source=settings.root / f"{split}.txt",
            folder=settings.root / split,
            categories=Categories((5,), ("thing",)),
            image_ids=range(len(images)),
            file_names=[image.name for image in images],
            sizes=np.full((len(images), 2), 96, dtype=np.int32),
            owners=np.array([int(row[0]) for row in rows]),
            boxes=np.array([[float(v) for v in row[1:]] for row in rows]),
            labels=np.zeros(len(rows), dtype=int),
            areas=np.zeros(len(rows)),
            crowd=np.zeros(len(rows), dtype=bool),
        )

    assert coco.recognize(shapes_root, "train")
    monkeypatch.setattr(reading, "LAYOUTS", (*reading.LAYOUTS, "rows"))
    module(
        monkeypatch,
        "conditional_detr.data.layouts",
        "rows",
        LOOKED_FOR="SPLIT.txt",
        recognize=lambda root, split: (root / f"{split}.txt").is_file(),
        read=read,
    )
    for split in ("train", "val"):
        (tmp_path / "rows" / split).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (96, 96), (i, 0, 0)).save(tmp_path / "rows" / split / f"{i}.png")
        (tmp_path / "rows" / f"{split}.txt").write_text("".join(f"{i} 10 10 {20 + i} 30\n" for i in range(8)))
    summary = starting.train(changed(quick_run, data={"root": tmp_path / "rows"}, train={"epochs": 1}))
    assert summary.best["per_class"].keys() == {"thing"}


def test_a_runtime(tiny_settings):
    """What computes the network is exchanged without touching what is around it."""
    settings = ModelSettings.model_validate({**tiny_settings.model_dump(), **SMALL, "batch_norm": "frozen"})
    model = build_model(settings, 2).eval()

    class Backwards:
        name = "backwards"

        @torch.no_grad()
        def __call__(self, pixels, padding_mask=None) -> Outputs:
            outputs = model(pixels, padding_mask).last
            return Outputs(outputs.logits.flip(1), outputs.boxes.flip(1))

        def shared(self, streams):
            return self

    detector = Detector(
        Checkpoint(model, ModelRecord(settings.architecture(), Categories((1, 2), ("a", "b")), InputSize((96, 96)))),
        device="cpu",
    )
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8))
    plain = detector.predict(image, 0.0)
    detector.pipeline = Pipeline(detector.record, Backwards())
    assert "runs with backwards" in repr(detector)
    torch.testing.assert_close(detector.predict(image, 0.0).scores, plain.scores)
