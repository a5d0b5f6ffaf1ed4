"""Checkpoint folders: a round trip preserves the model, and transformers computes the same from them."""

import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from conditional_detr import Detector
from conditional_detr.architecture import Architecture, BackboneShape
from conditional_detr.checkpoints.backbone_weights import load_backbone_weights
from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.config import ModelSettings
from conditional_detr.data.batching import pad, prepare
from conditional_detr.errors import InputError
from conditional_detr.input_size import InputSize
from conditional_detr.model.network import build_model
from conditional_detr.record import Categories, ModelRecord
from tests.checkpoints.models import SMALL, load_checkpoint, randomized, save_checkpoint, small
from tests.conftest import SHARED, needs_shared


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
    saved = randomized(settings, Categories((3, 0, 90), ("x", "y", "z")))
    save_checkpoint(saved, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    loaded = load_checkpoint(tmp_path)
    assert loaded.categories == saved.categories
    assert loaded.input_size == saved.input_size
    assert loaded.architecture.dilation == settings.dilation
    assert loaded.architecture.backbone == settings.backbone
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, saved.model.state_dict()[name]), name
    pixels = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(loaded.model.eval()(pixels), saved.model(pixels), atol=1e-5, rtol=0)


def run_transformers(model, pixels, mask=None):
    """Return logits and boxes of a transformers model; mask is True where padded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of transformers itself
        answer = model.eval()(pixel_values=pixels, pixel_mask=None if mask is None else (~mask).long())
    return answer.logits, answer.pred_boxes


def some_images():
    """Return the same two images of different size in every call."""
    torch.manual_seed(1)
    pixels = torch.randn(2, 3, 96, 128)
    mask = torch.zeros(2, 96, 128, dtype=torch.bool)
    mask[1, 64:] = True
    pixels[1, :, 64:] = 0
    return pixels, mask


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101", "demo", "detr", "auxiliary_loss", "detr auxiliary_loss"])
@torch.no_grad()
def test_transformers_opens_what_we_write(backbone, tiny_settings, tmp_path):
    """Full-size networks and that of the demo: no missing or unexpected key, and equal logits and boxes."""
    transformers = pytest.importorskip("transformers")
    if backbone == "demo":
        settings = tiny_settings
    elif "detr" in backbone or "auxiliary_loss" in backbone:
        decoder = "detr" if "detr" in backbone else "conditional"
        settings = small(decoder, norm_between_layers="auxiliary_loss" in backbone)
    else:
        settings = ModelSettings(backbone=backbone, batch_norm="frozen")
    ours = randomized(settings)
    save_checkpoint(ours, tmp_path)
    kind = transformers.DetrForObjectDetection if "detr" in backbone else transformers.ConditionalDetrForObjectDetection
    theirs, info = kind.from_pretrained(tmp_path, output_loading_info=True, attn_implementation="eager")
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert theirs.config.id2label == {0: "rectangle", 1: "ellipse", 2: "triangle"}
    logits, boxes = run_transformers(theirs, *some_images())
    predictions = ours.model(*some_images())
    torch.testing.assert_close(logits, predictions.logits[-1], atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes, predictions.boxes[-1], atol=1e-4, rtol=0)
    assert load_checkpoint(tmp_path).architecture.norm_between_layers == settings.norm_between_layers


@pytest.mark.parametrize("names", ["hub", "memory"])
@pytest.mark.parametrize("decoder", ["conditional", "detr"])
@torch.no_grad()
def test_we_open_what_transformers_writes(decoder, names, tmp_path):
    """A fine-tuned model with three labels, saved under the hub's names or those of transformers 5 in memory."""
    transformers = pytest.importorskip("transformers")
    ours = randomized(small(decoder))
    save_checkpoint(ours, tmp_path / "start")
    kind = transformers.DetrForObjectDetection if decoder == "detr" else transformers.ConditionalDetrForObjectDetection
    config = kind.config_class.from_pretrained(tmp_path / "start")
    assert config.conditional_detr["categories"]["ids"] == [
        1,
        2,
        3,
    ]  # transformers keeps our key, so it must not override the new labels
    config.id2label = {0: "cat", 1: "dog", 2: "N/A"}
    theirs = kind.from_pretrained(tmp_path / "start", config=config, attn_implementation="eager")
    theirs.save_pretrained(tmp_path / "saved")
    processor = {"size": {"shortest_edge": 96, "longest_edge": 128}, "do_pad": True, "format": "coco_detection"}
    (tmp_path / "saved" / "preprocessor_config.json").write_text(json.dumps(processor))
    if names == "memory":
        save_file(theirs.state_dict(), tmp_path / "saved" / "model.safetensors")
    opened = load_checkpoint(tmp_path / "saved")
    assert opened.origin.layout == ("hub-native" if names == "hub" else "memory-native")
    assert opened.categories == Categories((0, 1, 2), ("cat", "dog", "N/A"))
    assert opened.input_size == InputSize((96, 128), rule="transformers")
    logits, boxes = run_transformers(theirs, *some_images())
    predictions = opened.model.eval()(*some_images())
    torch.testing.assert_close(logits, predictions.logits[-1], atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes, predictions.boxes[-1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("dilation", [False, True])
@torch.no_grad()
def test_transformers_with_timm(dilation, tmp_path):
    """The hub's layout with timm's names, which is the only one with DC5."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip(
        "timm", reason="timm, which needs torchvision, is not here", exc_type=(ImportError, RuntimeError)
    )
    ours = randomized(small(backbone="resnet50", dilation=dilation))
    save_checkpoint(ours, tmp_path, timm_backbone=True)
    theirs, info = transformers.ConditionalDetrForObjectDetection.from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    logits, boxes = run_transformers(theirs, *some_images())
    predictions = ours.model(*some_images())
    torch.testing.assert_close(logits, predictions.logits[-1], atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes, predictions.boxes[-1], atol=1e-4, rtol=0)


# --- preprocessing ---


def processor_of(folder):
    """Return transformers' image processor for Pillow; the other one needs torchvision."""
    pytest.importorskip("transformers")
    from transformers.models.conditional_detr.image_processing_pil_conditional_detr import (
        ConditionalDetrImageProcessorPil,
    )

    return ConditionalDetrImageProcessorPil.from_pretrained(folder)


def pictures(*sizes):
    generator = np.random.default_rng(0)
    # Smooth like photos; noise would amplify rounding errors.
    small_ones = [generator.integers(0, 256, (4, 5, 3), dtype=np.uint8) for _ in sizes]
    return [
        Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC)
        for each, (height, width) in zip(small_ones, sizes, strict=True)
    ]


@pytest.mark.parametrize(
    ("size", "same"),
    [
        (InputSize((800, 1333), rule="transformers"), True),
        (InputSize((480, 640), rule="fit"), True),
        (InputSize((320, 256), rule="stretch"), True),
        (InputSize((480, 640), rule="fit", padded=(480, 640), boxes="padded-with-mask"), True),
        (InputSize((800, 1333)), False),  # published rounding: other sizes when the limit applies
    ],
    ids=["transformers", "fit", "stretch", "padded", "published"],
)
def test_preprocessing_is_that_of_transformers(size, same, tmp_path):
    """Equal pixels (within 1e-5, of values around 1) and masks, for single images and batches."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers would interpret boxes differently
        save_checkpoint(randomized(small(), size=size), tmp_path)
    processor = processor_of(tmp_path)
    images = pictures((480, 640), (333, 500), (427, 333), (100, 400), (401, 201), (612, 612))
    for group in ([image] for image in images) if size.padded is None else ([image] for image in images[:2]):
        check_pixels(group, processor, size, same)
    if same:
        check_pixels(images, processor, size, same)


def check_pixels(images, processor, size, same):
    theirs = processor(images, return_tensors="pt")
    batch = pad([prepare(image, size) for image in images], size)
    if not same and theirs["pixel_values"].shape != batch.pixels.shape:
        difference = np.abs(np.subtract(theirs["pixel_values"].shape, batch.pixels.shape)).max()
        assert difference <= 4
        return
    torch.testing.assert_close(theirs["pixel_values"], batch.pixels, atol=1e-5, rtol=0)
    mask = torch.zeros_like(theirs["pixel_mask"]).bool() if batch.padding_mask is None else batch.padding_mask
    assert torch.equal(theirs["pixel_mask"] == 0, mask)


@torch.no_grad()
def test_boxes_are_those_of_transformers(tmp_path):
    """Both pipelines from image to boxes in pixels, with boxes relative to the unpadded image."""
    transformers = pytest.importorskip("transformers")
    size = InputSize((96, 128), rule="transformers")
    ours = Detector(randomized(small(), size=size), device="cpu")
    ours.save_pretrained(tmp_path)
    theirs = transformers.ConditionalDetrForObjectDetection.from_pretrained(
        tmp_path, attn_implementation="eager"
    ).eval()
    processor = processor_of(tmp_path)
    for image in pictures((480, 640), (427, 333), (100, 400)):
        inputs = processor([image], return_tensors="pt")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outputs = theirs(**inputs)
        (expected,) = processor.post_process_object_detection(
            outputs, threshold=0.0, target_sizes=[(image.height, image.width)]
        )
        found = ours.predict(image, threshold=0.0)
        torch.testing.assert_close(found.scores, expected["scores"], atol=1e-5, rtol=0)
        torch.testing.assert_close(found.boxes, expected["boxes"], atol=1e-2, rtol=0)
        assert torch.equal(found.labels, expected["labels"] + 1)  # ours are category ids, theirs logit indices


def test_what_is_recorded_holds_for_the_recorded_sizes_only(tmp_path):
    """transformers keeps our key when it saves a fine-tuned model with other padding."""
    save_checkpoint(randomized(small()), tmp_path)
    processor = processor_of(tmp_path)
    processor.pad_size = {"height": 128, "width": 128}
    processor.save_pretrained(tmp_path)
    assert "conditional_detr" in (tmp_path / "preprocessor_config.json").read_text()
    with pytest.warns(UserWarning, match="assumed to be relative to the padded image"):
        assert load_checkpoint(tmp_path).input_size == InputSize((96, 128), "transformers", (128, 128), "padded")


@pytest.mark.parametrize("boxes", [None, "padded", "padded-with-mask", "image"])
@torch.no_grad()
def test_fine_tunes_on_padded_images(boxes, tmp_path):
    """transformers normalizes targets by the padded image, and its guide trains without a mask (docs/checkpoints.md).

    Boxes of such a model are relative to the padded image if images are padded as in its training.
    """
    transformers = pytest.importorskip("transformers")
    save_checkpoint(randomized(small()), tmp_path)
    theirs = transformers.ConditionalDetrForObjectDetection.from_pretrained(
        tmp_path, attn_implementation="eager"
    ).eval()
    processor = {"size": {"max_height": 96, "max_width": 96}, "pad_size": {"height": 96, "width": 96}, "do_pad": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    damage(tmp_path, lambda config: config.pop("conditional_detr"))
    if boxes is None:
        with pytest.warns(UserWarning, match="assumed to be relative to the padded image"):
            ours = Detector.from_pretrained(tmp_path, device="cpu")
    else:
        ours = Detector.from_pretrained(tmp_path, device="cpu", boxes=boxes)
    assert ours.checkpoint.input_size.boxes == (boxes or "padded")
    (image,) = pictures((200, 400))
    inputs = processor_of(tmp_path)([image], return_tensors="pt")
    assert inputs["pixel_mask"].sum() == 48 * 96
    mask = (
        inputs["pixel_mask"] == 0
        if boxes in ("image", "padded-with-mask")
        else torch.zeros(1, 96, 96, dtype=torch.bool)
    )
    logits, relative = run_transformers(theirs, inputs["pixel_values"], mask)
    scores, best = logits[0].flatten().sigmoid().topk(20)
    frame = torch.tensor([400, 200] if boxes == "image" else [400, 400])  # in image pixels; padding doubles the height
    center, extent = relative[0, best // 3].split(2, -1)
    expected = torch.cat([(center - extent / 2) * frame, (center + extent / 2) * frame], -1)
    found = ours.predict(image, threshold=0.0)
    torch.testing.assert_close(found.scores[:20], scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.boxes[:20], expected, atol=1e-2, rtol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours.save_pretrained(tmp_path / "again")  # saved with the checkpoint, so it need not be given again
    assert (
        Detector.from_pretrained(tmp_path / "again", device="cpu").checkpoint.input_size == ours.checkpoint.input_size
    )


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"size": 800, "max_size": 1000}, InputSize((800, 1000), rule="transformers")),  # form of 2020
        ({"size": {"shortest_edge": 600}}, InputSize((600, 1333), rule="transformers")),
        ({"size": {"height": 300, "width": 200}, "pad_size": None}, InputSize((300, 200), rule="stretch")),
        ({"size": {"max_height": 1, "max_width": 2}, "do_pad": False, "pad_size": {"height": 9, "width": 9}}, InputSize((1, 2), rule="fit")),
        ({}, "size must have shortest_edge"),
        ({"size": {"longest_edge": 5}}, "size must have shortest_edge"),
        ({"size": {"height": 100_000, "width": 100_000}}, "must be from 1 to 33554432 pixels, got 100000 x 100000"),
        ({"size": {"shortest_edge": 9000, "longest_edge": 9000}}, "must be from 1 to 33554432 pixels, got 9000 x 9000"),
        ({"size": {"height": 5, "width": -5}}, "must be from 1 to"),
        ({"size": {"height": -3, "width": 2}}, "must be from 1 to"),
        ({"size": 800, "image_mean": [0.5, 0.5, 0.5]}, "image_mean=.* is not supported"),
        ({"size": 800, "do_resize": False}, "do_resize=False is not supported"),
        ({"size": 800, "do_normalize": False}, "do_normalize=False is not supported"),
        ({"size": 800, "rescale_factor": 1.0}, "rescale_factor=1.0 is not supported"),
    ],
)  # fmt: skip
def test_sizes_that_transformers_knows(processor, expected, tmp_path):
    save_checkpoint(randomized(small()), tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            load_checkpoint(tmp_path)
    else:
        assert load_checkpoint(tmp_path).input_size == expected


def test_a_folder_without_a_preprocessor(tiny_settings, tmp_path, caplog):
    """As when only the model was saved. What the model's record says comes before transformers' default."""
    saved = randomized(tiny_settings, size=InputSize((96, 128)))
    save_checkpoint(saved, tmp_path)
    file = tmp_path / "preprocessor_config.json"
    processor = json.loads(file.read_text())
    file.unlink()
    assert load_checkpoint(tmp_path).input_size == saved.input_size
    assert "has no preprocessor_config.json: images are scaled to (96, 128) pixels (published, as" in caplog.text
    damage(tmp_path, lambda config: config.pop("conditional_detr"))
    assert load_checkpoint(tmp_path).input_size == InputSize((800, 1333), rule="transformers")
    assert "scaled to (800, 1333) pixels (the default of transformers)" in caplog.text
    assert load_checkpoint(tmp_path, boxes="padded").input_size.boxes == "padded"
    nested = tmp_path / "processor_config.json"  # form of transformers 5, which comes first there too
    nested.write_text(json.dumps({"image_processor": {**processor, "size": {"height": 64, "width": 32}}}))
    assert load_checkpoint(tmp_path).input_size == InputSize((64, 32), rule="stretch")
    nested.write_text(json.dumps({"processor_class": "SomeProcessor"}))  # older form, with nothing of images in it
    file.write_text(json.dumps(processor))
    assert load_checkpoint(tmp_path).input_size == saved.input_size
    for text in ("", "{", "[]", "<html></html>"):
        file.write_text(text)
        with pytest.raises(InputError, match=r"preprocessor_config\.json (is not valid JSON|must hold a JSON object)"):
            load_checkpoint(tmp_path)


def test_a_dilated_backbone_of_another_shape_stays_ours(tmp_path, tiny_settings):
    """Neither timm nor transformers supports it, but the checkpoint of a run still opens."""
    dilated = randomized(tiny_settings.model_copy(update={"dilation": True}))
    with pytest.warns(UserWarning, match="own ResNet has no dilation"):
        save_checkpoint(dilated, tmp_path)
    opened = load_checkpoint(tmp_path)
    assert opened.architecture.dilation is True
    assert opened.architecture.backbone == tiny_settings.backbone
    with pytest.raises(InputError, match="timm has no backbone of this shape"):
        save_checkpoint(dilated, tmp_path, timm_backbone=True)


def test_transformers_would_compute_something_else_is_said(tmp_path, tiny_settings):
    with pytest.warns(UserWarning, match="position_temperature=20"):
        save_checkpoint(randomized(tiny_settings.model_copy(update={"position_temperature": 20.0})), tmp_path)
    assert load_checkpoint(tmp_path).architecture.position_temperature == 20


@needs_shared("reference/keys")
@pytest.mark.parametrize(("dilation", "file"), [(False, "native"), (True, "timm")])
def test_names_and_shapes_are_those_of_the_hub(dilation, file, tmp_path):
    from safetensors import safe_open

    settings = ModelSettings(dilation=dilation, batch_norm="frozen")
    model = build_model(settings, 2)  # the recorded model has two labels
    save_checkpoint(
        Checkpoint(model, ModelRecord(settings.architecture(), Categories((0, 1), ("a", "b")), InputSize())), tmp_path
    )
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
        (lambda c: c.update(model_type="detr"), "settings say decoder='detr', its weights have conditional"),
        (lambda c: c.pop("d_model"), "lacks 'd_model'"),
        (lambda c: c.update(d_model="wide"), "channels='wide', its weights have 64"),
        (lambda c: c.update(num_queries=21), "queries=21, its weights have 20"),
        (lambda c: c.update(decoder_layers=3), "decoder_layers=3, its weights have 2"),
        (lambda c: c.update(encoder_attention_heads=3), "different numbers of attention heads"),
        (lambda c: c.update(dropout=2), "dropout: .* got 2"),
        (lambda c: c.update(activation_function="gelu"), "activation_function='gelu' is not supported"),
        (lambda c: c.update(id2label=3), "id2label must name classes"),
        (lambda c: c.update(id2label={"1": "a"}), r"id2label must name classes .*; it names \['1'\]"),
        (lambda c: c.update(id2label={"0": "a"}, conditional_detr={}), "names 1 classes, the class head has 3"),
    ],
)
def test_damaged_folders_are_one_sentence(change, sentence, tiny_settings, tmp_path):
    save_checkpoint(randomized(tiny_settings), tmp_path)
    damage(tmp_path, change)
    with pytest.raises(InputError, match=sentence) as caught:
        load_checkpoint(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"dilation": True}, True),
        ({"dilation": False}, False),
        ({"dilation": False, "backbone_kwargs": {"output_stride": 16}}, True),
        ({"dilation": True, "backbone_config": {"model_type": "timm_backbone", "output_stride": 32}}, False),
        ({"dilation": True, "backbone_config": {"model_type": "timm_backbone", "output_stride": 8}}, "output_stride=8"),
        ({"backbone": "resnet18d"}, "backbone 'resnet18d' is not supported"),
    ],
)
def test_dilation_as_transformers_passes_it_to_timm(change, expected, tmp_path):
    save_checkpoint(randomized(small()), tmp_path, timm_backbone=True)
    damage(tmp_path, lambda config: config.update(change))
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            load_checkpoint(tmp_path)
    else:
        assert load_checkpoint(tmp_path).architecture.dilation is expected


def test_the_own_resnet_of_transformers_never_dilates(tmp_path):
    save_checkpoint(randomized(small()), tmp_path)
    damage(tmp_path, lambda config: config.update(dilation=True))
    assert load_checkpoint(tmp_path).architecture.dilation is False
    damage(tmp_path, lambda config: config["backbone_config"].update(hidden_act="gelu"))
    with pytest.raises(InputError, match="a ResNet with 'gelu' is not supported"):
        load_checkpoint(tmp_path)


def test_labels_without_names(tiny_settings, tmp_path):
    """transformers omits its default label names from the config."""
    save_checkpoint(randomized(tiny_settings), tmp_path)
    damage(tmp_path, lambda config: (config.pop("id2label"), config.pop("conditional_detr")))
    assert load_checkpoint(tmp_path).categories == Categories((0, 1, 2), ("LABEL_0", "LABEL_1", "LABEL_2"))


def test_missing_and_cut_files_are_one_sentence(tiny_settings, tmp_path):
    save_checkpoint(randomized(tiny_settings), tmp_path)
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
    """torchvision's files also contain the classifier and the counters of batch norm."""
    source = randomized(ModelSettings(backbone="resnet18", batch_norm="trained", **SMALL)).model.backbone
    state = {**source.state_dict(), "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    file = tmp_path / f"resnet18{suffix}"
    if suffix == ".pth":
        torch.save(state, file)
    else:
        save_file(state, file)
    target = build_model(ModelSettings(backbone="resnet18", batch_norm=batch_norm, **SMALL), 2).backbone
    load_backbone_weights(target, Architecture(), file)
    for name, value in target.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(value, state[name]), name


def test_wrong_backbone_weights_are_one_sentence(tmp_path):
    backbone = build_model(ModelSettings(backbone="resnet18", batch_norm="frozen", **SMALL), 2).backbone
    other = build_model(ModelSettings(backbone="resnet34", batch_norm="frozen", **SMALL), 2).backbone
    torch.save(other.state_dict(), tmp_path / "r34.pth")
    with pytest.raises(InputError, match=r"r34\.pth does not fit the model: layer1\.2\.conv1\.weight is not part"):
        load_backbone_weights(backbone, Architecture(), tmp_path / "r34.pth")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.safetensors").write_text("hello, this is not a tensor")
    torch.save([1], tmp_path / "list.pth")
    for name in ("empty.pth", "text.safetensors", "list.pth", "nowhere.pth"):
        with pytest.raises(InputError, match=name) as caught:
            load_backbone_weights(backbone, Architecture(), tmp_path / name)
        assert "\n" not in str(caught.value)


# --- fuzz: any JSON at any place of the two settings files ---

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
) | st.sampled_from([10**400, 2**63, -1, 0.0, "9" * 5000, [[]] * 1000, {"height": 1e300, "width": 1}])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    shape = BackboneShape(block="basic", depths=(1,), widths=(16,), stem_width=8)
    save_checkpoint(randomized(ModelSettings(backbone=shape, batch_norm="frozen", **SMALL)), folder)
    return folder


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_any_settings_open_or_are_refused(name, data, saved, tmp_path):
    content = json.loads((saved / name).read_text())
    place = content
    while True:
        key = data.draw(
            st.sampled_from(
                [*place, "size", "pad_size", "id2label", "backbone_config", "backbone_kwargs", "do_pad", "max_size"]
            )
        )
        if not isinstance(place.get(key), dict) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(ANYTHING)
    for each in saved.iterdir():
        target = tmp_path / each.name
        if each.name == name:
            target.write_text(json.dumps(content))
        elif not target.exists():
            target.symlink_to(each)
    try:
        load_checkpoint(tmp_path)
    except InputError as error:
        assert len(str(error)) < 2000  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
