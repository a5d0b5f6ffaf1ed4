"""Checkpoint folders: what we write we read back, and transformers computes the same from it."""

import json
import warnings

import pytest
import torch
from torch import nn

from conditional_detr.checkpoints.backbone_weights import load_backbone_weights
from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.checkpoints.huggingface import load_checkpoint, save_checkpoint
from conditional_detr.config import BackboneShape, ModelSettings
from conditional_detr.data.shapes import SHAPES
from conditional_detr.data.transforms import InputSize
from conditional_detr.errors import InputError
from conditional_detr.model.network import build_model
from conditional_detr.structures import Categories
from tests.conftest import SHARED, needs_shared

SMALL = {"channels": 64, "heads": 4, "feed_forward": 96, "encoder_layers": 1, "decoder_layers": 2, "queries": 9}


def randomised(settings: ModelSettings, categories: Categories = SHAPES, seed: int = 0) -> Checkpoint:
    """A model whose every parameter and statistic differs from its initial value."""
    torch.manual_seed(seed)
    model = build_model(settings, len(categories))
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, 1.0 if parameter.mean() > 0.5 else 0.0, 0.1)
    nn.init.normal_(model.box_head.layers[-1].weight, std=0.1)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    return Checkpoint(model.eval(), settings, categories, InputSize((96, 128)))


@pytest.mark.parametrize(
    "settings",
    [
        ModelSettings(
            backbone=BackboneShape(block="basic", depths=(1, 2), widths=(16, 32), stem_width=8),
            batch_norm="trained",
            **SMALL,
        ),
        ModelSettings(backbone="resnet50", batch_norm="frozen", **SMALL),
        ModelSettings(backbone="resnet50", dilation=True, batch_norm="frozen", **SMALL),
        ModelSettings(backbone="resnet18", batch_norm="frozen", **SMALL | {"encoder_layers": 0}),
    ],
    ids=["tiny", "r50", "r50-dc5", "r18-no-encoder"],
)
@torch.no_grad()
def test_there_and_back_is_bit_equal(settings, tmp_path):
    saved = randomised(settings, Categories((3, 0, 90), ("x", "y", "z")))
    save_checkpoint(saved, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    loaded = load_checkpoint(tmp_path)
    assert loaded.categories == saved.categories
    assert loaded.input_size == saved.input_size
    assert loaded.settings.dilation == settings.dilation
    assert loaded.settings.backbone == settings.backbone
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, saved.model.state_dict()[name]), name
    pixels = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(loaded.model.eval()(pixels), saved.model(pixels), atol=1e-5, rtol=0)


@pytest.mark.parametrize("backbone", ["resnet50", None], ids=["r50", "demo"])
@torch.no_grad()
def test_transformers_opens_what_we_write(backbone, tiny_settings, tmp_path):
    transformers = pytest.importorskip("transformers")
    settings = tiny_settings if backbone is None else ModelSettings(backbone=backbone, batch_norm="frozen", **SMALL)
    ours = randomised(settings)
    save_checkpoint(ours, tmp_path)
    theirs, info = transformers.ConditionalDetrForObjectDetection.from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert theirs.config.id2label == {0: "rectangle", 1: "ellipse", 2: "triangle"}
    pixels = torch.randn(2, 3, 96, 128)
    mask = torch.zeros(2, 96, 128, dtype=torch.bool)
    mask[1, 64:] = True
    pixels[1, :, 64:] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own
        answer = theirs.eval()(pixel_values=pixels, pixel_mask=(~mask).long())
    predictions = ours.model(pixels, mask)
    torch.testing.assert_close(answer.logits, predictions.logits[-1], atol=1e-4, rtol=0)
    torch.testing.assert_close(answer.pred_boxes, predictions.boxes[-1], atol=1e-4, rtol=0)


def test_transformers_would_compute_something_else_is_said(tmp_path, tiny_settings):
    with pytest.warns(UserWarning, match="position_temperature=20"):
        save_checkpoint(randomised(tiny_settings.model_copy(update={"position_temperature": 20.0})), tmp_path)
    assert load_checkpoint(tmp_path).settings.position_temperature == 20


@needs_shared("reference/keys")
@pytest.mark.parametrize(("dilation", "file"), [(False, "native"), (True, "timm")])
def test_names_and_shapes_are_those_of_the_hub(dilation, file, tmp_path):
    from safetensors import safe_open

    settings = ModelSettings(dilation=dilation, batch_norm="frozen")
    model = build_model(settings, 2)  # the recorded model has two labels
    save_checkpoint(Checkpoint(model, settings, Categories((0, 1), ("a", "b")), InputSize()), tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as written:
        ours = {name: written.get_slice(name).get_shape() for name in written.keys()}  # noqa: SIM118
    recorded = json.loads((SHARED / "reference" / "keys" / f"hf4_conddetr_r50_{file}_saved.json").read_text())
    theirs = dict(recorded)
    heads = {name for name in theirs if name.startswith("class_labels_classifier")}
    assert ours.keys() == theirs.keys()
    assert {n: s for n, s in ours.items() if n not in heads} == {n: s for n, s in theirs.items() if n not in heads}


def damage(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.update(model_type="yolos"), "of a 'yolos' model"),
        (lambda c: c.update(model_type="detr"), "settings say decoder=detr, its weights have conditional"),
        (lambda c: c.pop("d_model"), "lacks 'd_model'"),
        (lambda c: c.update(d_model="wide"), "channels=wide, its weights have 64"),
        (lambda c: c.update(num_queries=21), "queries=21, its weights have 20"),
        (lambda c: c.update(decoder_layers=3), "decoder_layers=3, its weights have 2"),
        (lambda c: c.update(encoder_attention_heads=3), "different numbers of attention heads"),
        (lambda c: c.update(dropout=2), "dropout: .* got 2"),
        (lambda c: c.update(activation_function="gelu"), "activation_function='gelu' is not supported"),
        (lambda c: c.update(auxiliary_loss=True), "auxiliary_loss=true transformers computes another function"),
        (lambda c: c.pop("id2label"), "id2label must name classes"),
        (lambda c: c.update(id2label={"1": "a"}), "id2label must name classes"),
        (lambda c: c.update(id2label={"0": "a"}, conditional_detr={}), "names 1 classes, the class head of .* has 3"),
    ],
)
def test_damaged_folders_are_one_sentence(change, sentence, tiny_settings, tmp_path):
    save_checkpoint(randomised(tiny_settings), tmp_path)
    damage(tmp_path, change)
    with pytest.raises(InputError, match=sentence) as caught:
        load_checkpoint(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_cut_files_are_one_sentence(tiny_settings, tmp_path):
    save_checkpoint(randomised(tiny_settings), tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors can't be read"):
        load_checkpoint(tmp_path)
    weights.unlink()
    with pytest.raises(InputError, match=r"holds neither model\.safetensors nor"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("batch_norm", ["frozen", "trained"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_backbone_weights_of_torchvision(batch_norm, suffix, tmp_path):
    """torchvision's files have the classifier and the counters of batch norm besides."""
    from safetensors.torch import save_file

    source = randomised(ModelSettings(backbone="resnet18", batch_norm="trained", **SMALL)).model.backbone
    state = {**source.state_dict(), "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    file = tmp_path / f"resnet18{suffix}"
    if suffix == ".pth":
        torch.save(state, file)
    else:
        save_file(state, file)
    target = build_model(ModelSettings(backbone="resnet18", batch_norm=batch_norm, **SMALL), 2).backbone
    load_backbone_weights(target, file)
    for name, value in target.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(value, state[name]), name


def test_wrong_backbone_weights_are_one_sentence(tmp_path):
    backbone = build_model(ModelSettings(backbone="resnet18", batch_norm="frozen", **SMALL), 2).backbone
    other = build_model(ModelSettings(backbone="resnet34", batch_norm="frozen", **SMALL), 2).backbone
    torch.save(other.state_dict(), tmp_path / "r34.pth")
    with pytest.raises(InputError, match=r"r34\.pth does not fit the model: layer1\.2\.conv1\.weight is not part"):
        load_backbone_weights(backbone, tmp_path / "r34.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("hello, this is not a tensor")
    torch.save([1], tmp_path / "list.pth")
    for name in ("empty.pth", "text.safetensors", "list.pth", "nowhere.pth"):
        with pytest.raises(InputError, match=name) as caught:
            load_backbone_weights(backbone, tmp_path / name)
        assert "\n" not in str(caught.value)
