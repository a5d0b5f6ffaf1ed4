"""Fine-tuning from any checkpoint: matching weights are kept, others replaced, and both are reported."""

import re
import shlex

import pytest
import torch
from safetensors.torch import load_file, save_file

from conditional_detr.checkpoints.coco_categories import COCO_80, COCO_91
from conditional_detr.checkpoints.conversion import convert
from conditional_detr.checkpoints.initialization import initialize
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.config import ModelSettings, load_settings
from conditional_detr.data.shapes import SHAPES
from conditional_detr.errors import InputError
from conditional_detr.input_size import InputSize
from conditional_detr.model.network import build_model
from conditional_detr.record import Categories
from conditional_detr.runs import read_metrics
from conditional_detr.training import starting
from tests.checkpoints.models import randomized, small
from tests.training.test_loop import changed


def started(start, categories, **changes):
    """Return the parameters of a new model before and after initialization, and the messages."""
    settings = ModelSettings(init_from="start.pth", **{**start.architecture.model_dump(), **changes})
    torch.manual_seed(5)
    model = build_model(settings, len(categories))
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    return fresh, model.state_dict(), initialize(model, settings, categories, start, "start.pth")


def test_same_categories_keep_everything():
    start = randomized(small(), SHAPES)
    _, state, messages = started(start, Categories((10, 20, 30), SHAPES.names))
    for name, value in start.model.state_dict().items():
        assert torch.equal(state[name], value), name
    assert messages[1:] == ["class head: kept, the 3 categories are the same", "queries: all 9 kept"]


@pytest.mark.parametrize("decoder", ["conditional", "detr"])
def test_class_rows_are_kept_by_name(decoder):
    start = randomized(small(decoder), COCO_91)
    fresh, state, messages = started(start, Categories((1, 2, 3, 4), ("Dog", "drone", "person", "n/a")))
    theirs = start.model.state_dict()
    for name in ("class_head.weight", "class_head.bias"):
        assert torch.equal(state[name][[0, 2]], theirs[name][[18, 1]])  # row of COCO_91 = category id
        assert torch.equal(state[name][[1, 3]], fresh[name][[1, 3]])
        if decoder == "detr":  # the row of "no object" is kept too
            assert torch.equal(state[name][4], theirs[name][91])
    rest = [name for name in theirs if not name.startswith("class_head")]
    assert all(torch.equal(state[name], theirs[name]) for name in rest)
    assert messages[1].endswith("rows kept by name: Dog, person; new rows: drone, n/a")


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (4, "queries: the first 4 of 9 kept, because model.queries=4"),
        (12, "queries: 9 kept, 3 new ones start from random positions"),
    ],
)
def test_queries_grow_and_shrink(queries, message):
    start = randomized(small())
    fresh, state, messages = started(start, SHAPES, queries=queries)
    name = "decoder.query_position.weight"
    common = min(queries, 9)
    assert torch.equal(state[name][:common], start.model.state_dict()[name][:common])
    assert torch.equal(state[name][common:], fresh[name][common:])
    assert message in messages


@pytest.mark.parametrize("decoder", ["conditional", "detr"])
@pytest.mark.parametrize(
    ("to", "head"),
    [
        ("official", "class_embed"),
        ("mmdetection", "bbox_head.fc_cls"),
        ("huggingface", "class_labels_classifier"),
    ],
)
def test_weights_without_a_class_head_get_a_new_one(to, head, decoder, tmp_path):
    """They open for fine-tuning only, whatever the file says of categories."""
    original = randomized(small(decoder), COCO_80)
    out = tmp_path / (to if to == "huggingface" else f"{to}.pth")
    convert(original, out, to)
    if to == "huggingface":
        values = load_file(out / "model.safetensors")
        save_file({name: value for name, value in values.items() if head not in name}, out / "model.safetensors")
    else:
        content = torch.load(out, weights_only=False)
        values = content["model" if to == "official" else "state_dict"]
        for name in [name for name in values if head in name]:
            del values[name]
        torch.save(content, out)
    with pytest.raises(InputError, match=rf": {re.escape(head)} is missing, the class head; train a new one with"):
        open_checkpoint(out)
    start = open_checkpoint(out, headless=True)
    assert len(start.categories) == 0
    fresh, state, messages = started(start, SHAPES)
    assert messages[1] == "class head: new for all 3 categories, because the checkpoint has none"
    for name, value in state.items():
        kept = fresh if name.startswith("class_head") else original.model.state_dict()
        assert torch.equal(value, kept[name]), name


def test_frames_of_boxes_are_told():
    start = randomized(small(), size=InputSize((96, 96), boxes="padded"))
    assert "relative to padded images" in started(start, SHAPES)[2][-1]


def test_another_network_is_refused_with_what_to_set(tiny_settings):
    start = randomized(small())
    with pytest.raises(InputError, match=r"or set model\.channels=64 model\.encoder_layers=1$"):
        started(start, SHAPES, channels=32, encoder_layers=2)
    with pytest.raises(InputError, match=r"set model\.dilation=false$"):
        started(start, SHAPES, dilation=True)
    with pytest.raises(InputError, match=r"set 'model\.backbone=") as caught:
        started(randomized(tiny_settings), SHAPES, backbone="resnet18")
    (override,) = shlex.split(str(caught.value).partition(" or set ")[2])  # valid in a shell as printed
    assert load_settings("conditional-detr_r50_8xb2-50e_coco", [override]).model.backbone == tiny_settings.backbone


@pytest.mark.parametrize("to", ["official", "mmdetection", "huggingface"])
def test_training_starts_from_every_format(to, quick_run, tmp_path, caplog):
    """With a learning rate of 0, the saved model equals the one that training started from."""
    start = randomized(small(), SHAPES)
    out = tmp_path / (to if to == "huggingface" else f"{to}.pth")
    convert(start, out, to)
    caplog.set_level("INFO")
    shape = {
        key: getattr(start.architecture, key)
        for key in ("channels", "heads", "feed_forward", "encoder_layers", "decoder_layers")
    }
    model = {"backbone": "resnet18", "queries": 9, "init_from": str(out), **shape}
    settings = changed(quick_run, model=model, train={"lr": 0.0, "lr_backbone": 0.0, "max_steps": 1})
    run = starting.train(settings).run
    said = [record.getMessage() for record in caplog.records if record.name.startswith("conditional_detr")]
    assert said[:3] == [
        f"starting from {out}: all weights are kept, except as listed below",
        "class head: kept, the 3 categories are the same",
        "queries: all 9 kept",
    ]
    saved = open_checkpoint(run.path)
    for name, value in start.model.state_dict().items():
        assert torch.equal(saved.model.state_dict()[name], value), name
    out.rename(tmp_path / "moved")  # resuming does not need the checkpoint it started from
    assert starting.resume(run.path).finished


def test_a_run_for_other_categories_keeps_all_but_the_class_head(quick_run, tmp_path, caplog):
    """Only the class head has a learning rate here, so everything else is as in the checkpoint after the run."""
    start = randomized(small(), COCO_80)
    convert(start, tmp_path / "start", "huggingface")
    caplog.set_level("INFO")
    shape = {
        key: getattr(start.architecture, key)
        for key in ("channels", "heads", "feed_forward", "encoder_layers", "decoder_layers")
    }
    model = {"backbone": "resnet18", "queries": 9, "init_from": str(tmp_path / "start"), **shape}
    rates = {"lr": 0.0, "lr_backbone": 0.0, "lr_class_head": 0.1, "max_steps": 2, "log_every": 1, "warmup_steps": 0}
    run = starting.train(changed(quick_run, model=model, train=rates)).run
    assert (
        "class head: replaced, because the 3 categories are not the 80 of the checkpoint; rows kept by name: none"
        in (caplog.text)
    )
    assert "queries: all 9 kept" in caplog.messages
    saved, before = open_checkpoint(run.path).model.state_dict(), start.model.state_dict()
    different = {name for name, value in before.items() if not torch.equal(saved[name], value)}
    assert different == {"class_head.weight", "class_head.bias"}
    assert {"decoder.query_position.weight", "decoder.reference_head.layers.0.weight"} <= set(before)
    assert next(r["lr_class_head"] for r in read_metrics(run.metrics) if r["kind"] == "train") == pytest.approx(0.1)
