"""Presets hold the published values, and settings that contradict each other are refused."""

from typing import get_args

import pytest
import yaml

from conditional_detr.architecture import BackboneShape
from conditional_detr.config import (
    Settings,
    load_settings,
    preset_names,
    setting_fields,
    setting_keys,
    settings_from,
)
from conditional_detr.errors import InputError
from conditional_detr.loss.criterion import build_criterion

PUBLISHED = "conditional-detr_r50_8xb2-50e_coco"
OFFICIAL = "official main.py, defaults of its options (Atten4Vis/ConditionalDETR 8ea7c3f)"
SCRIPTS = "official README and scripts: 50 epochs, --lr_drop 40"
TRANSFORMS = "official datasets/coco.py, make_coco_transforms"
MMDET = "MMDetection 3.3, configs/conditional_detr/conditional-detr_r50_8xb2-50e_coco.py"
PAPER = "paper, section 4.1"
OURS = "our own choice"
RECIPE = {
    "model.backbone": ("resnet50", OFFICIAL),
    "model.decoder": ("conditional", "the paper"),
    "model.classification": ("sigmoid", "official models/conditional_detr.py"),
    "model.dilation": (False, OFFICIAL),
    "model.backbone_weights": (None, "a user's file: torchvision's V1 ImageNet weights were used"),
    "model.init_from": (None, OURS),
    "model.batch_norm": ("auto", "frozen with weights, as official models/backbone.py"),
    "model.frozen_stages": ("auto", "stem and stage one with weights, as official models/backbone.py"),
    "model.channels": (256, OFFICIAL),
    "model.heads": (8, OFFICIAL),
    "model.feed_forward": (2048, OFFICIAL),
    "model.encoder_layers": (6, OFFICIAL),
    "model.decoder_layers": (6, OFFICIAL),
    "model.queries": (300, OFFICIAL),
    "model.dropout": (0.1, OFFICIAL),
    "model.position_temperature": (10000.0, "official models/position_encoding.py and transformer.py"),
    "model.norm_between_layers": (False, "the paper; transformers with auxiliary_loss"),
    "model.class_prior": (0.01, "official models/conditional_detr.py, prior_prob"),
    "model.ablate": ((), OURS),
    "loss.class_cost": ("auto", "2 as official main.py, see below"),
    "loss.l1_cost": (5.0, OFFICIAL),
    "loss.giou_cost": (2.0, OFFICIAL),
    "loss.class_weight": ("auto", "2 as official main.py, see below"),
    "loss.l1_weight": (5.0, OFFICIAL),
    "loss.giou_weight": (2.0, OFFICIAL),
    "loss.class_loss": ("focal", OFFICIAL),
    "loss.mal_gamma": (1.5, "unused: of the matchability-aware loss, as DEIM"),
    "loss.focal_alpha": (0.25, OFFICIAL),
    "loss.no_object_weight": (0.1, "of DETR's cross entropy, unused: official main.py of DETR"),
    "loss.focal_gamma": (2.0, "official models/conditional_detr.py, sigmoid_focal_loss"),
    "data.root": (None, "the user's"),
    "data.train_annotations": (None, "the user's"),
    "data.train_images": (None, "the user's"),
    "data.val_annotations": (None, "the user's"),
    "data.val_images": (None, "the user's"),
    "data.layout": ("auto", "the user's"),
    "data.hub": (None, "the user's"),
    "data.val": ("auto", OURS),
    "data.val_fraction": (0.0, OURS),
    "data.categories": ((), "the user's"),
    "data.voc_one_based": (False, "the user's"),
    "data.voc_difficult": ("ignore", "MMDetection, VOC data sets"),
    "data.exif": ("auto", OURS),
    "data.strict": (False, OURS),
    "data.flip": (0.5, TRANSFORMS),
    "data.short_sides": ((480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800), TRANSFORMS),
    "data.max_size": (1333, TRANSFORMS),
    "data.crop": (0.5, TRANSFORMS),
    "data.crop_short_sides": ((400, 500, 600), TRANSFORMS),
    "data.crop_min": (384, TRANSFORMS),
    "data.crop_max": (600, TRANSFORMS),
    "data.scale_jitter": (0.0, "not in the published recipe"),
    "data.scale_min": (0.5, OURS),
    "data.scale_max": (2.0, "torchvision's ScaleJitter, scale_range"),
    "data.mosaic": (0.0, "not in the published recipe"),
    "data.mosaic_until": (0.8, OURS),
    "data.min_visible": (0.25, OURS),
    "data.vertical_flip": (0.0, "not in the published recipe"),
    "data.quarter_turns": (0.0, "not in the published recipe"),
    "data.color_jitter": (0.0, "not in the published recipe"),
    "data.brightness": (0.125, "torchvision's RandomPhotometricDistort, after SSD"),
    "data.contrast": (0.5, "torchvision's RandomPhotometricDistort, after SSD"),
    "data.saturation": (0.5, "torchvision's RandomPhotometricDistort, after SSD"),
    "data.hue": (0.05, "torchvision's RandomPhotometricDistort, after SSD"),
    "data.eval_short_side": (800, TRANSFORMS),
    "data.eval_max_size": (1333, TRANSFORMS),
    "data.group_by_aspect_ratio": (False, OFFICIAL),
    "data.workers": (2, OFFICIAL),
    "data.on_error": ("stop", OURS),
    "train.epochs": (50, SCRIPTS),
    "train.steps": (0, OURS),
    "train.minutes": (0.0, OURS),
    "train.max_steps": (0, OURS),
    "train.patience": (0, OFFICIAL),
    "train.batch_size": (2, MMDET),
    "train.accumulate": (1, OFFICIAL),
    "train.base_batch_size": (16, MMDET),
    "train.scale_lr": (False, OFFICIAL),
    "train.lr": (1e-4, OFFICIAL),
    "train.lr_backbone": (1e-5, OFFICIAL),
    "train.lr_class_head": (None, OFFICIAL),
    "train.weight_decay": (1e-4, OFFICIAL),
    "train.clip_norm": (0.1, OFFICIAL),
    "train.schedule": ("step", SCRIPTS),
    "train.drop_at": (0.8, SCRIPTS),
    "train.flat_until": (0.5, "RTMDet's schedule, configs/rtmdet of MMDetection"),
    "train.cosine_end": (0.01, OURS),
    "train.warmup_steps": (0, OFFICIAL),
    "train.query_groups": (1, OFFICIAL),
    "train.ema_decay": (0.0, OFFICIAL),
    "train.ema_ramp": (0, OFFICIAL),
    "train.gradient_checkpointing": (False, OFFICIAL),
    "train.mixed_precision": ("no", OFFICIAL),
    "train.seed": (42, OFFICIAL),
    "train.output": ("runs", OURS),
    "train.name": ("", OURS),
    "train.resume": ("never", OURS),
    "train.log": ((), OURS),
    "train.log_every": (10, OURS),
    "train.save_every": (1000, OURS),
    "evaluation.every": (1, OFFICIAL),
    "evaluation.batch_size": (1, MMDET),
    "evaluation.max_dets": (None, "100 in official PostProcess, or more where the data has more"),
    "evaluation.report": (True, OURS),
}


def number_types(annotation: object) -> set[object]:
    """Return the types in the annotation of a setting."""
    inner = get_args(annotation)
    return set().union(*map(number_types, inner)) if inner else {annotation if isinstance(annotation, type) else None}


def test_every_value_of_the_published_recipe():
    values = load_settings(PUBLISHED)
    flat = {key: getattr(getattr(values, key.split(".")[0]), key.split(".")[1]) for key in setting_keys()}
    flat["train.output"] = str(flat["train.output"])
    assert flat == {key: value for key, (value, _) in RECIPE.items()}
    criterion = build_criterion(values.loss)
    assert (criterion.matcher.class_cost, criterion.weights, criterion.no_object_weight) == (2, (2, 5, 2), None)


def test_plain_detr_brings_its_defaults():
    """The defaults are those of the official DETR: softmax with "no object", 100 queries, class cost and weight 1."""
    values = load_settings(PUBLISHED, ["model.decoder=detr"])
    assert (values.model.classification, values.model.queries) == ("softmax", 100)
    criterion = build_criterion(values.loss, softmax=True)
    assert (criterion.matcher.class_cost, criterion.weights, criterion.no_object_weight) == (1, (1, 5, 2), 0.1)
    assert load_settings(PUBLISHED, ["model.decoder=detr", "model.queries=50"]).model.queries == 50


@pytest.mark.parametrize(
    ("name", "backbone", "dilation", "batch"),
    [
        ("conditional-detr_r101_8xb2-50e_coco", "resnet101", False, (2, 16)),
        ("conditional-detr_r50-dc5_8xb1-50e_coco", "resnet50", True, (1, 8)),
        ("conditional-detr_r101-dc5_8xb1-50e_coco", "resnet101", True, (1, 8)),
    ],
)
def test_the_other_published_models_differ_in_nothing_else(name, backbone, dilation, batch):
    values = load_settings(name)
    assert (values.model.backbone, values.model.dilation) == (backbone, dilation)
    assert (values.train.batch_size, values.train.base_batch_size) == batch
    published = load_settings(PUBLISHED)
    assert values.model_copy(update={"preset": ""}) == published.model_copy(
        update={
            "preset": "",
            "model": published.model.model_copy(update={"backbone": backbone, "dilation": dilation}),
            "train": published.train.model_copy(update={"batch_size": batch[0], "base_batch_size": batch[1]}),
        }
    )


def test_what_does_not_go_together_is_refused():
    with pytest.raises(InputError, match=r"^detr_tiny_shapes: train\.query_groups needs model\.decoder=conditional$"):
        load_settings("detr_tiny_shapes", ["train.query_groups=3"])
    with pytest.raises(InputError, match=r"^detr_tiny_shapes: model: ablate=\['query_scale'\] names parts that only"):
        load_settings("detr_tiny_shapes", ["model.ablate=[query_scale]"])
    with pytest.raises(InputError, match=r"^settings: data: scale_min 3 is larger than scale_max 2$"):
        settings_from({"data": {"scale_min": 3.0}})
    with pytest.raises(
        InputError, match=r"data: mosaic=0\.5 has no effect with mosaic_until=0; set mosaic=0, or mosaic_un"
    ):
        settings_from({"data": {"mosaic": 0.5, "mosaic_until": 0.0}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            (key, value)
            for key in ("mosaic", "scale_jitter", "vertical_flip", "color_jitter")
            for value in (-0.1, 1.1, True)
        ),
        *(("hue", value) for value in (-0.1, 0.51)),
        *((key, 0) for key in ("scale_min", "scale_max")),
        ("quarter_turns", "90"),
        ("contrast", None),
    ],
)
def test_values_of_augmentation_are_checked(key, value):
    with pytest.raises(InputError, match=rf"^settings: data\.{key}: ") as caught:
        settings_from({"data": {key: value}})
    assert "\n" not in str(caught.value)


def test_the_baseline_of_the_paper():
    """The preset equals MMDetection's configuration of the same name."""
    values = load_settings("detr_r50_8xb2-150e_coco")
    published = load_settings(PUBLISHED)
    assert (values.model.queries, values.model.classification) == (100, "softmax")
    assert values.train.epochs == 150  # tests/training/test_optimizer.py checks the drop after epoch 100
    assert values.train.model_copy(update={"epochs": 50, "drop_at": 0.8}) == published.train
    assert values.data == published.data


def test_the_tiny_baseline_is_equal_in_size_and_data():
    ours, theirs = load_settings("conditional-detr_tiny_shapes"), load_settings("detr_tiny_shapes")
    assert theirs.model.decoder == "detr"
    same = ("backbone", "channels", "heads", "feed_forward", "encoder_layers", "decoder_layers", "queries", "dropout")
    assert all(getattr(ours.model, key) == getattr(theirs.model, key) for key in same)
    assert ours.data == theirs.data
    assert ours.train.warmup_steps == theirs.train.warmup_steps
    assert theirs.train.epochs == 5 * ours.train.epochs


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_survives_yaml(name, tmp_path):
    values = load_settings(name)
    file = tmp_path / "config.yaml"
    file.write_text(values.to_yaml())
    assert load_settings(file) == values


def test_auto_follows_the_backbone_weights():
    random = settings_from({}).model.resolved()
    assert (random.batch_norm, random.frozen_stages) == ("trained", -1)
    published = settings_from({"model": {"backbone_weights": "x.pth"}}).model.resolved()
    assert (published.batch_norm, published.frozen_stages) == ("frozen", 1)
    own = settings_from({"model": {"batch_norm": "frozen", "frozen_stages": 2}}).model.resolved()
    assert (own.batch_norm, own.frozen_stages) == ("frozen", 2)


def test_auto_of_the_loss_follows_the_classification():
    sigmoid = settings_from({}).resolved()
    assert (sigmoid.loss.class_cost, sigmoid.loss.class_weight) == (2, 2)
    softmax = settings_from({"model": {"decoder": "detr"}, "loss": {"class_cost": 3.0}}).resolved()
    assert (softmax.loss.class_cost, softmax.loss.class_weight) == (3, 1)
    assert sigmoid.model == settings_from({}).model.resolved()
    assert settings_from({"loss": {"class_loss": "mal"}}).resolved().loss.class_weight == 1


def test_the_matchability_aware_loss_is_for_sigmoid_scores():
    with pytest.raises(ValueError, match=r"loss.class_loss=mal needs .*; set model.classification=sigmoid"):
        settings_from({"model": {"classification": "softmax"}, "loss": {"class_loss": "mal"}})


@pytest.mark.parametrize("name", preset_names())
def test_resolved_leaves_no_auto(name):
    settings = load_settings(name)
    resolved = settings.resolved()
    for section in ("model", "loss", "train", "evaluation"):  # the files of the data decide what its "auto" means
        values = getattr(resolved, section).model_dump()
        values.pop("batch_size", None)  # the machine decides what its "auto" means
        assert "auto" not in values.values()
    assert resolved.resolved() == resolved
    backbone = {settings.model.batch_norm, settings.model.frozen_stages}
    assert settings.to_yaml().count("auto") == (7 if "auto" in backbone else 5)  # files keep "auto"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "key", [key for key, field in setting_fields().items() if {int, float} & number_types(field.annotation)]
)
def test_no_number_is_infinite(key, value):
    section, _, name = key.partition(".")
    with pytest.raises(InputError, match=key):
        settings_from({section: {name: value}})


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model.queries=1000000000"], r"model\.queries: must be at most 100,000 \(.*\), got 1000000000"),
        (["model.channels=100000000"], r"model\.channels: must be at most 65,536"),
        (["model.heads=1000000000000"], r"a multiple of 4 and of heads"),
        (["model.feed_forward=100000000"], r"model\.feed_forward: must be at most 1,000,000"),
        (["model.encoder_layers=10000000"], r"model\.encoder_layers: must be at most 1,000"),
        (["model.decoder_layers=10000000"], r"model\.decoder_layers: must be at most 1,000"),
        (
            ["model.channels=65536", "model.feed_forward=1000000"],
            r"about 2e\+12 parameters, more than 1e\+10; make channels",
        ),
        (["model.position_temperature=1e300"], r"model\.position_temperature: must be at most"),
        (["model.position_temperature=1e-300"], r"model\.position_temperature: .*greater than or equal"),
        (["model.backbone={block: basic, depths: [100000000], widths: [64]}"], r"depths: must be at most 1,000"),
        (["model.backbone={block: basic, depths: [1000], widths: [65536]}"], r"about 8e\+13 parameters"),
        ([f"model.backbone={{block: basic, depths: {[1] * 99}, widths: {[8] * 99}}}"], r"at most 10 stages, got 99"),
        (["train.batch_size=1000000000000"], r"train\.batch_size: must be at most 65,536"),
        (["train.accumulate=1000000000000"], r"train\.accumulate: must be at most 65,536"),
        (["train.batch_size=65536", "train.accumulate=65536"], r"batch_size=65536 times accumulate=65536 is above"),
        (["train.query_groups=1000000"], r"train\.query_groups: must be at most 1,000"),
        (["train.query_groups=1000"], r"model\.queries=300 times train\.query_groups=1000 is above 100,000"),
        (["train.epochs=1000000000000000000"], r"train\.epochs: must be at most 1,000,000,000"),
        (["train.epochs=-1"], r"train\.epochs: .*greater than 0"),
        (["train.max_steps=1000000000000000000"], r"train\.max_steps: must be at most"),
        (["train.seed=-1"], r"train\.seed: .*greater than or equal to 0"),
        (
            ["train.lr=1e300"],
            r"train\.lr: must be at most 1,000,000,000 \(training in float32 overflows\), got 1e\+300",
        ),
        (["loss.l1_weight=1e300"], r"loss\.l1_weight: must be at most"),
        (["data.workers=1000000"], r"data\.workers: must be at most 1,024"),
        (["evaluation.batch_size=1000000000000"], r"evaluation\.batch_size: must be at most 65,536"),
        (["evaluation.max_dets=1000000000000"], r"evaluation\.max_dets: must be at most 1,000,000"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_absurd_numbers_are_refused_before_they_fill_the_memory(overrides, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        load_settings(PUBLISHED, overrides)
    assert len(str(caught.value)) < 300


def test_odd_experiments_are_none_of_them():
    load_settings(
        PUBLISHED,
        [
            *("model.queries=20000", "model.channels=4096", "model.feed_forward=16384", "model.heads=64"),
            *("model.encoder_layers=0", "model.decoder_layers=24", "model.position_temperature=0.5"),
            *(
                "train.epochs=100000",
                "train.batch_size=4096",
                "train.accumulate=64",
                "train.lr=100",
                "train.lr_backbone=0",
            ),
            *("train.save_every=1000000000000", "evaluation.every=1000000000000", "loss.giou_weight=1e6"),
        ],
    )
    load_settings(PUBLISHED, ["model.decoder_layers=1000", "model.backbone={block: basic, depths: [333], widths: [8]}"])


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**5000, -(10**5000)], ids=["400", "-400", "5000", "-5000"])
@pytest.mark.parametrize("key", ["model.queries", "model.dropout", "train.lr", "train.epochs", "evaluation.max_dets"])
def test_numbers_of_very_many_digits_are_refused(key, value):
    section, _, name = key.partition(".")
    with pytest.raises(InputError, match=key) as caught:
        settings_from({section: {name: value}})
    assert len(str(caught.value)) < 300


def test_every_setting_says_what_it_is():
    sections = [field.annotation for name, field in Settings.model_fields.items() if name != "preset"]
    for section in [*sections, BackboneShape]:
        assert [name for name, field in section.model_fields.items() if not field.description] == []


def test_yaml_is_plain():
    assert isinstance(yaml.safe_load(load_settings(PUBLISHED).to_yaml())["model"]["backbone"], str)
