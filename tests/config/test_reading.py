"""Files and ``key=value`` are read as they look; what is wrong in them is refused in one sentence."""

from pathlib import Path

import pytest

from conditional_detr.config import load_settings
from conditional_detr.errors import InputError

PUBLISHED = "conditional-detr_r50_8xb2-50e_coco"


def test_overrides_have_types():
    values = load_settings(
        PUBLISHED,
        ["data.root=/data/coco", "train.lr=2e-4", "data.short_sides=[320, 352]", "evaluation.max_dets=300"],
    )
    assert values.data.root == Path("/data/coco")
    assert values.train.lr == 2e-4
    assert values.data.short_sides == (320, 352)
    assert values.evaluation.max_dets == 300


def test_values_are_what_they_look_like():
    """Not what YAML 1.1 makes of them: no is not a boolean, and a name may be a number."""
    values = load_settings(PUBLISHED, ["train.mixed_precision=no", "train.name=001", "data.root=2024"])
    assert (values.train.mixed_precision, values.train.name, values.data.root) == ("no", "001", Path("2024"))
    assert load_settings(PUBLISHED, ["data.root=null", "train.scale_lr=true"]).data.root is None


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.epoch=3", r"unknown key 'train\.epoch' \(did you mean 'train\.epochs'\?\)"),
        ("model.query=3", r"did you mean 'model\.queries'"),
        ("epochs=3", r"unknown key 'epochs' \(did you mean 'train\.epochs'"),
        ("trian.epochs=3", r"unknown key 'trian' \(did you mean 'train'"),
        ("train.epochs=many", r"train\.epochs: .*integer.* got 'many'"),
        ("train.epochs=0", r"train\.epochs: .*greater than 0, got 0"),
        ("model.backbone=resnet52", r"model\.backbone: input should be 'resnet18', .*, got 'resnet52'"),
        ("model.backbone={blok: basic}", r"blok: extra inputs are not permitted"),
        ("model.frozen_stages=7", r"'auto' or input should be less than or equal to 4, got 7"),
        ("model.heads=7", r"channels must be a multiple of 4 and of heads \(7\)"),
        ("data.flip=1.5", r"data\.flip: .*less than or equal to 1"),
        ("train.epochs", "not of the form key=value"),
        ("data.short_sides=[", r"data\.short_sides: '\[' is not a YAML value"),
        ("preset.x=1", "unknown key 'preset.x'"),
    ],
)
def test_wrong_overrides_are_refused(override, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        load_settings(PUBLISHED, [override])
    assert "\n" not in str(caught.value)


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="did you mean 'conditional-detr_r50_8xb2-50e_coco'"):
        load_settings("conditional-detr_r50_8xb2")
    with pytest.raises(InputError, match="can't be read"):
        load_settings(tmp_path / "no.yaml")
    file = tmp_path / "x.yaml"
    file.write_text("a: [")
    with pytest.raises(InputError, match="not valid YAML"):
        load_settings(file)
    file.write_text("- 1")
    with pytest.raises(InputError, match="must hold sections"):
        load_settings(file)
