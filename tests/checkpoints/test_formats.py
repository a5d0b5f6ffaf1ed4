"""Every format opens, and a round trip between any two formats is bit-exact."""

import argparse
import itertools
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conditional_detr import Detector
from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.checkpoints.coco_categories import COCO_80, COCO_91
from conditional_detr.checkpoints.conversion import convert
from conditional_detr.checkpoints.names import Part, recognize
from conditional_detr.checkpoints.opening import open_checkpoint
from conditional_detr.checkpoints.safe_load import load_pth
from conditional_detr.checkpoints.state import read_state, write_state
from conditional_detr.config import ModelSettings
from conditional_detr.errors import InputError
from conditional_detr.input_size import InputSize
from conditional_detr.model.network import build_model
from conditional_detr.record import Categories, ModelRecord, Thresholds
from tests.checkpoints.models import LAYOUTS, randomized, small
from tests.conftest import SHARED, needs_shared
from tests.model.reference import load_reference

KEYS = SHARED / "reference" / "keys"
FORMATS = ["huggingface", "timm", "official", "mmdetection"]
CATEGORIES = {"91": COCO_91, "80": COCO_80, "own": Categories((3, 0, 90), ("x", "y", "z"))}


def write(checkpoint: Checkpoint, folder, to: str):
    """Convert to a format; "timm" means huggingface with timm's names."""
    out = folder / (to if to in ("huggingface", "timm") else f"{to}.pth")
    convert(checkpoint, out, "huggingface" if to == "timm" else to, True if to == "timm" else None)
    return out


def tensors(path):
    """Return the tensors of a checkpoint, without the other entries of an official or MMDetection file."""
    if path.is_dir():
        return load_file(path / "model.safetensors")
    content = load_pth(path)
    return content["model"] if "model" in content else content["state_dict"]


# --- names ---


@needs_shared("reference/keys")
@pytest.mark.parametrize(
    ("layout", "decoder", "file"),
    [
        ("mmdetection", "conditional", "map_official_to_mmdet"),
        ("hub", "conditional", "map_official_to_hf_hub"),
        ("hub-native", "conditional", "map_official_to_hf_hub_native"),
        ("memory", "conditional", "map_official_to_hf5"),
        ("memory-native", "conditional", "map_official_to_hf5_native"),
        ("mmdetection", "detr", "map_detr_to_mmdet"),
        ("hub", "detr", "map_detr_to_hf_hub"),
    ],
)
def test_names_are_those_of_the_published_files(layout, decoder, file):
    names = json.loads((KEYS / f"{file}.json").read_text())
    for official, targets in names.items():
        part = LAYOUTS["official"].ours(decoder, official)
        assert part is not None
        assert LAYOUTS["official"].names(decoder, part.ours) == [official]
        found = LAYOUTS[layout].names(decoder, part.ours)
        assert found == [name for name, _ in targets]
        for i, name in enumerate(found):
            assert LAYOUTS[layout].ours(decoder, name) == Part(part.ours, i, len(found))
    assert recognize(names, LAYOUTS.values()) == (LAYOUTS["official"], decoder)
    found = recognize([name for targets in names.values() for name, _ in targets], LAYOUTS.values())
    assert found == (LAYOUTS[layout], decoder)


@needs_shared("reference/keys")
@pytest.mark.parametrize(
    ("decoder", "to", "file"),
    [
        ("conditional", "official", "official_conddetr_r50"),
        ("conditional", "mmdetection", "mmdet_conddetr_r50"),
        ("detr", "official", "official_detr_r50"),
        ("detr", "mmdetection", "mmdet_detr_r50"),
    ],
)
def test_written_files_have_the_names_and_shapes_of_published_ones(decoder, to, file, tmp_path):
    settings = ModelSettings.model_validate({"decoder": decoder, "batch_norm": "frozen"})
    checkpoint = Checkpoint(build_model(settings, 91), ModelRecord(settings.architecture(), COCO_91, InputSize()))
    written = {name: list(value.shape) for name, value in tensors(write(checkpoint, tmp_path, to)).items()}
    recorded = json.loads((KEYS / f"{file}.json").read_text())
    assert written == dict(recorded)


@needs_shared("reference/sample_expected.json")
@pytest.mark.parametrize(
    ("file", "layout"),
    [
        ("sample_official.pth", "official"),
        ("sample_mmdet.pth", "mmdetection"),
        ("sample_mmdet_slim.pth", "mmdetection"),
        ("sample_mmdet_train.pth", "mmdetection"),
        ("sample_hf_hub.safetensors", "hub"),
        ("sample_hf_hf5.safetensors", "memory"),
        ("sample_hf_native.safetensors", "hub-native"),
    ],
)
def test_samples_of_published_files(file, layout):
    """Files as the programs write them: every tensor is read, whatever its name in the file."""
    path = SHARED / "reference" / file
    given = load_file(path) if path.suffix == ".safetensors" else load_pth(path)
    given = given.get("model") or given.get("state_dict") if path.suffix == ".pth" else given
    state = read_state(given, path)
    assert (state.layout.name, state.decoder) == (layout, "conditional")
    expected = json.loads((SHARED / "reference" / "sample_expected.json").read_text())["tensors"]
    if file == "sample_mmdet_train.pth":
        expected = {name: value for name, value in expected.items() if "decoder.layers.1." not in name}
    found = {LAYOUTS["official"].names("conditional", name)[0]: value for name, value in state.values.items()}
    assert found.keys() == expected.keys()
    for name, (shape, checksum) in expected.items():
        assert list(found[name].shape) == shape
        assert zlib.crc32(found[name].numpy().astype("<f4").tobytes()) == checksum, name


# --- round trips ---


PAIRS = list(itertools.combinations(FORMATS, 2))  # each pair is tested in both directions
CASES = [
    *(("conditional", "91", pair) for pair in PAIRS),
    *(("detr", "own", pair) for pair in PAIRS),
    *(("conditional", "80", pair) for pair in PAIRS if set(pair) == {"official", "mmdetection"}),
]


@pytest.mark.parametrize(("decoder", "categories", "pair"), CASES)
def test_there_and_back_through_every_pair_is_bit_equal(decoder, categories, pair, tmp_path):
    original = randomized(small(decoder), CATEGORIES[categories])
    thresholds = Thresholds(0.4, tuple(None if i % 3 else 0.3 for i in range(len(original.categories))))
    original = replace(original, record=replace(original.record, thresholds=thresholds))
    start = write(original, tmp_path, pair[0])
    there = write(open_checkpoint(start), tmp_path, pair[1])
    (tmp_path / "back").mkdir()
    back = open_checkpoint(there)
    before, after = tensors(start), tensors(write(back, tmp_path / "back", pair[0]))
    assert before.keys() == after.keys()
    for name in before:
        assert torch.equal(before[name], after[name]), name
    assert back.categories == original.categories
    assert back.input_size == original.input_size
    assert back.record.thresholds == thresholds
    assert back.architecture == original.architecture
    for name, value in back.model.state_dict().items():
        assert torch.equal(value, original.model.state_dict()[name]), name


def test_account_of_a_conversion(tmp_path):
    """The table contains every tensor of the source, and the entries that were dropped."""
    source = write(randomized(small(), COCO_91), tmp_path, "official")
    content = torch.load(source, weights_only=False)
    torch.save({**content, "optimizer": {}, "epoch": 49}, source)
    rows, remarks = convert(open_checkpoint(source), tmp_path / "x.pth", "mmdetection")
    assert sum(row.tensors for row in rows if row.target) == len(content["model"])
    assert {(row.source, row.what) for row in rows if not row.target} == {
        ("optimizer", "dropped: training state"),
        ("epoch", "dropped: training state"),
    }
    assert (
        "transformer.decoder.layers.N.sa_qpos_proj.*",
        "decoder.layers.N.self_attn.qpos_proj.*",
        4,
        "renamed",
    ) in rows
    assert [remark.partition(" (")[0] for remark in remarks] == [
        "the model was made for images of",
        "20 num_batches_tracked of batch norm were added as 0, which MMDetection expects but does not use",
        "11 rows of the class head without a category",
    ]
    rows, _ = convert(open_checkpoint(tmp_path / "x.pth"), tmp_path / "hf", "huggingface")
    packed = [row for row in rows if row.what == "split in 3"]
    assert [row.target for row in packed] == ["model.encoder.layers.N.self_attn.{q,k,v}_proj.*"]
    assert sum(row.tensors for row in rows if "counter of batch norm" in row.what) == 20


def test_class_heads_mean_the_same_in_every_format(tmp_path):
    """A row of the official head is a category id. MMDetection's rows are contiguous. Rows without a category never score."""
    original = randomized(small(), COCO_80)
    official = load_pth(write(original, tmp_path, "official"))["model"]
    assert official["class_embed.weight"].shape == (91, 64)
    for row, category_id in enumerate(COCO_80.ids):
        assert torch.equal(official["class_embed.weight"][category_id], original.model.class_head.weight[row])
    assert (official["class_embed.bias"][[0, 12, 83]].sigmoid() < 1e-30).all()
    del official  # next: a file of the official code, with 91 logits and without our key
    path = tmp_path / "official.pth"
    content = torch.load(path, weights_only=False)
    content.pop("conditional_detr")
    torch.save(content, path)
    assert open_checkpoint(path).categories == COCO_91
    mmdetection = load_pth(write(open_checkpoint(path), tmp_path, "mmdetection"))
    assert torch.equal(mmdetection["state_dict"]["bbox_head.fc_cls.weight"], original.model.class_head.weight)
    assert mmdetection["meta"]["dataset_meta"]["classes"] == COCO_80.names


# --- settings that files state or omit ---


UNTOLD_HEADS = pytest.mark.filterwarnings("ignore:.*does not say how many attention heads")


@UNTOLD_HEADS
def test_dc5_is_read_or_asked_for_never_guessed(tmp_path):
    path = write(randomized(small(dilation=True), COCO_91), tmp_path, "official")
    assert open_checkpoint(path).architecture.dilation is True
    with pytest.raises(InputError, match="is recorded as a DC5 model"):
        open_checkpoint(path, dilation=False)
    content = torch.load(path, weights_only=False)
    torch.save({"model": content["model"]}, path)  # as published by facebookresearch/detr
    with pytest.raises(InputError, match="does not say whether it is a DC5 model"):
        open_checkpoint(path)
    for dilation in (False, True):
        assert open_checkpoint(path, dilation=dilation).architecture.dilation is dilation
    with pytest.raises(InputError, match="a different network from DC5"):
        write(open_checkpoint(path, dilation=True), tmp_path, "mmdetection")


@UNTOLD_HEADS
@pytest.mark.parametrize(
    ("cfg", "expected"),
    [
        ("model = dict(type='ConditionalDETR', backbone=dict(type='ResNet', depth=18))", False),
        ("model = dict(type='ConditionalDETR')", "does not say"),
        ("", "does not say"),
        ("model = (", "does not say"),
        ("model = dict(backbone=dict(dilations=(1, 1, 1, 2)))", "a different network from the published DC5"),
        ("model = dict(backbone=dict(style='caffe'))", "style 'caffe'"),
        ("model = dict(type='DeformableDETR')", "is a DeformableDETR of MMDetection"),
        ("model = dict(num_queries=7, backbone=dict())", "queries=7, its weights have 9"),
        ("model = dict(positional_encoding=dict(normalize=False))", "positional_encoding.normalize=False; only True"),
        ("model = dict(data_preprocessor=dict(mean=[0, 0, 0]))", "data_preprocessor.mean="),
        (
            "model = dict(decoder=dict(layer_cfg=dict(self_attn_cfg=dict(num_heads=4))))",
            "different numbers of attention",
        ),
        ("model = dict(type=__import__('os').system('touch /tmp/ran'), backbone=dict())", False),
    ],
)
def test_configurations_of_mmdetection(cfg, expected, tmp_path):
    """The text is parsed, never run."""
    path = write(randomized(small(), COCO_80), tmp_path, "mmdetection")
    content = load_pth(path)
    torch.save({"meta": {**content["meta"], "cfg": cfg}, "state_dict": content["state_dict"]}, path)
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            open_checkpoint(path)
    else:
        opened = open_checkpoint(path)
        assert opened.architecture.dilation is expected
        assert opened.categories == COCO_80


@UNTOLD_HEADS
@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        (
            "test_pipeline = [dict(type='LoadImage'), dict(type='Resize', scale=(640, 480), keep_ratio=True)]",
            InputSize((480, 640)),
        ),
        ("test_pipeline = [dict(type='Resize', scale=(640, 480))]", InputSize((480, 640), rule="stretch")),
        ("test_pipeline = [dict(type='Pad')]", InputSize()),
    ],
)
def test_image_size_of_mmdetection(pipeline, expected, tmp_path):
    path = write(randomized(small(dropout=0.3), COCO_80), tmp_path, "mmdetection")
    content = load_pth(path)
    cfg = content["meta"]["cfg"] + pipeline
    torch.save({"meta": {**content["meta"], "cfg": cfg}, "state_dict": content["state_dict"]}, path)
    opened = open_checkpoint(path)
    assert opened.input_size == expected
    assert (opened.architecture.heads, opened.architecture.dropout) == (4, 0.3)


def test_categories_of_a_fine_tune_with_mmdetection(tmp_path):
    path = write(randomized(small(), Categories((5, 6, 7), ("a", "b", "c"))), tmp_path, "mmdetection")
    content = load_pth(path)
    content.pop("conditional_detr")
    torch.save(content, path)
    assert open_checkpoint(path).categories == Categories((0, 1, 2), ("a", "b", "c"))
    content["meta"]["dataset_meta"] = {"classes": COCO_80.names}  # without metainfo in the user's config
    torch.save(content, path)
    opened = open_checkpoint(path)
    assert opened.categories == Categories((0, 1, 2), ("class 0", "class 1", "class 2"))
    assert opened.origin.left_out["meta.dataset_meta"] == "it names 80 classes, the class head has 3"


@pytest.mark.parametrize("container", ["args is a dict", "module.", "model.", "_orig_mod.", "model_state_dict"])
def test_other_ways_to_save(container, tmp_path):
    """Files of other training scripts: prefixes of DDP, Lightning and torch.compile, options as a dictionary."""
    path = write(randomized(small(), COCO_91), tmp_path, "official")
    content = torch.load(path, weights_only=False)
    model, args = content["model"], content["args"]
    if container == "args is a dict":
        args = vars(args)
    elif container.endswith("."):
        model = {container + name: value for name, value in model.items()}
    key = "model_state_dict" if container == "model_state_dict" else "model"
    torch.save({key: model, "args": args}, path)
    opened = open_checkpoint(path)
    assert opened.architecture.heads == 4
    assert opened.architecture.dilation is False


def test_untold_heads_are_said(tmp_path):
    path = write(randomized(small(heads=8), COCO_91), tmp_path, "official")
    torch.save({"model": load_pth(path)["model"]}, path)
    with pytest.warns(UserWarning, match="does not say how many attention heads it has; 8 are assumed"):
        open_checkpoint(path, dilation=False)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c["model"].pop("query_embed.weight"), r": query_embed\.weight is missing; give complete weights"),
        (lambda c: c["model"].pop("bbox_embed.layers.1.bias"), r" bbox_embed\.layers\.1\.bias is missing"),
        (lambda c: c["model"]["backbone.0.body.bn1.running_var"].neg_(), r"bn1\.running_var holds negative variances"),
        (lambda c: c["model"].pop("input_proj.weight"), r"input_proj\.weight is missing"),
        (lambda c: c["model"].update({"detr.mask_head.x": torch.zeros(1)}), "is not part of a Conditional DETR"),
        (lambda c: c["model"].update({"input_proj.bias": torch.zeros(64, dtype=torch.int)}), r"holds torch\.int32"),
        (lambda c: c["model"].update({"input_proj.bias": torch.zeros(65)}), r"has shape \[65\] instead of \[64\]"),
        (lambda c: c["model"].update({"class_embed.weight": torch.zeros(0, 64)}), "is empty, of shape"),
        (lambda c: setattr(c["args"], "hidden_dim", 256), "channels=256, its weights have 64"),
        (lambda c: setattr(c["args"], "position_embedding", "learned"), "position_embedding='learned'"),
        (lambda c: setattr(c["args"], "masks", True), "masks=True, which is not supported"),
        (lambda c: setattr(c["args"], "activation", "gelu"), "activation='gelu', which is not supported"),
        (
            lambda c: c["model"].update({"bbox_attention.k_linear.bias": torch.zeros(1)}),
            "is a segmentation model of DETR",
        ),
        (
            lambda c: [c["model"].pop(f"class_embed.{kind}") for kind in ("weight", "bias")],
            r": class_embed is missing, the class head; train a new one with model\.init_from",
        ),
        (lambda c: c["model"].pop("class_embed.bias"), r": class_embed\.bias is missing"),
        (
            lambda c: [c["model"].pop(name) for name in list(c["model"]) if name.startswith("backbone")],
            r": backbone\.0\.body\.\* is missing",
        ),
        (
            lambda c: [c["model"].pop(name) for name in list(c["model"]) if "decoder.layers" in name],
            r": transformer\.decoder\.layers\.0\.linear1\.weight is missing",
        ),
        (
            lambda c: [c["model"].pop(name) for name in list(c["model"]) if "decoder.layers.1.norm" in name],
            r"transformer\.decoder\.layers\.1\.norm1\.weight is missing \(and 5 more\)",
        ),
        (
            lambda c: c["model"].pop("backbone.0.body.layer1.0.conv1.weight"),
            r"backbone\.0\.body\.layer1\.0\.conv1\.weight is missing",
        ),
        (
            lambda c: (
                c["model"].update({"query_embed.weight": torch.zeros(90_000, 1)}),
                setattr(c["args"], "num_queries", 90_000),
            ),
            r"query_embed\.weight has shape \[90000, 1\] instead of \[90000, 64\]",
        ),
        (lambda c: c["model"].update({"query_embed.weight": torch.zeros(2_000_000, 0)}), "is empty, of shape"),
        (lambda c: setattr(c["args"], "nheads", 7), "multiple of 4 and of heads"),
        (lambda c: setattr(c["args"], "dropout", "much"), "dropout: .* got 'much'"),
        (lambda c: c.update(model={"backbone.conv1.weight": torch.zeros(2)}), "holds no weights of"),
        (lambda c: c.update(model={}), "holds no weights of"),
        (lambda c: c["conditional_detr"]["categories"].update(ids=[1]), "its model record is damaged"),
        (lambda c: c["conditional_detr"].update(input_size=3), "its model record is damaged"),
    ],
)
def test_wrong_files_are_one_sentence(change, sentence, tmp_path):
    path = write(randomized(small(), COCO_91), tmp_path, "official")
    content = torch.load(path, weights_only=False)
    change(content)
    torch.save(content, path)
    with pytest.raises(InputError, match=sentence) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_sources_are_one_sentence(tmp_path):
    hub = write(randomized(small()), tmp_path, "huggingface")
    torch.save(load_file(hub / "model.safetensors"), tmp_path / "hub.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"a": 1}, tmp_path / "other.pth")
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "model.safetensors").write_bytes((hub / "model.safetensors").read_bytes())
    for source, sentence in {
        hub / "model.safetensors": "give the folder, with config.json in it",
        tmp_path / "hub.pth": "part of a Hugging Face checkpoint",
        tmp_path / "moved" / "model.safetensors": "part of a Hugging Face checkpoint",
        tmp_path / "list.pth": "holds a list instead of named weights",
        tmp_path
        / "other.pth": r"holds no weights of Conditional DETR or DETR \(without tensors, its entries are 'a'\)",
        tmp_path / "nothing.pth": "does not exist",
    }.items():
        with pytest.raises(InputError, match=sentence) as caught:
            open_checkpoint(source)
        assert str(source) in str(caught.value)


def test_what_other_programs_do_not_have_is_refused(tiny_settings, tmp_path):
    odd = {
        "a backbone of its own shape": randomized(tiny_settings),
        "position_temperature=20": randomized(small(position_temperature=20.0)),
        "norm_between_layers": randomized(small(norm_between_layers=True)),
        "softmax classification": randomized(small(classification="softmax")),
        "boxes relative to the padded image": randomized(small(), size=InputSize((96, 96), boxes="padded")),
        "category ids from 1 to 90000": randomized(small(), Categories((1, 90000), ("a", "b"))),
    }
    for sentence, checkpoint in odd.items():
        with pytest.raises(InputError, match=sentence):
            convert(checkpoint, tmp_path / "x.pth", "official")
        assert not (tmp_path / "x.pth").exists()


def test_nothing_is_overwritten(tmp_path):
    checkpoint = randomized(small())
    for to in ("official", "huggingface"):
        out = write(checkpoint, tmp_path, to)
        with pytest.raises(InputError, match="exists; remove it or choose another place"):
            write(checkpoint, tmp_path, to)
        assert open_checkpoint(out).categories == checkpoint.categories


# --- outputs of the official code, reproduced from every format ---


@pytest.fixture(scope="module")
def reference(weight_rule):
    return load_reference("conddetr_small", weight_rule)


@needs_shared("reference/conddetr_small.json")
@pytest.mark.parametrize("to", ["official", "mmdetection", "hub", "hub-native", "memory", "memory-native", "old"])
@torch.no_grad()
def test_the_official_numbers_come_out_of_every_format(to, reference, tmp_path):
    official = {reference.official[name]: value for name, value in reference.model.state_dict().items()}
    path = tmp_path / "official.pth"
    torch.save({"model": official, "args": argparse.Namespace(**reference.meta["hyperparameters"])}, path)
    if to == "mmdetection":
        path = write(open_checkpoint(path), tmp_path, to)
    elif to != "official":
        folder = write(open_checkpoint(path), tmp_path, "timm" if to in ("hub", "memory", "old") else "huggingface")
        values, _ = write_state(reference.model.state_dict(), LAYOUTS["hub" if to == "old" else to], "conditional")
        (folder / "model.safetensors").unlink()
        if to == "old":  # the hub's form before safetensors, with a leftover counter
            values["model.backbone.conv_encoder.model.layer1.0.downsample.1.num_batches_tracked"] = torch.tensor(0)
            torch.save(values, folder / "pytorch_model.bin")
        else:
            from safetensors.torch import save_file

            save_file(values, folder / "model.safetensors")
        path = folder
    opened = open_checkpoint(path)
    assert opened.categories == COCO_91
    predictions = opened.model.eval()(reference.batch.pixels, reference.batch.padding_mask)
    np.testing.assert_allclose(predictions.logits[-1].numpy(), reference.arrays["pred_logits"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(predictions.boxes[-1].numpy(), reference.arrays["pred_boxes"], atol=2e-5, rtol=0)


# --- the hub ---


def test_a_hub_id_opens_from_the_cache(tmp_path, monkeypatch):
    """A downloaded checkpoint opens without internet access."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    repo = tmp_path / "models--owner--name"
    convert(randomized(small()), repo / "snapshots" / "abc", "huggingface")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    detector = Detector.from_pretrained("owner/name", device="cpu")
    assert detector.categories.names == ("rectangle", "ellipse", "triangle")
    with pytest.raises(InputError, match="owner/other is not a local file or folder, and can't be") as caught:
        Detector.from_pretrained("owner/other")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(to, value, tmp_path):
    broken = randomized(small())
    with torch.no_grad():
        broken.model.encoder.layers[0].norm1.bias[3] = value
    path = write(broken, tmp_path, to)
    with pytest.raises(InputError, match=r"norm.*bias holds NaN or infinity.*before training diverged") as caught:
        open_checkpoint(path, dilation=False)
    assert str(tmp_path) in str(caught.value)


def test_opening_draws_no_random_numbers(tmp_path):
    """The network is made for the weights, not with others first."""
    path = write(randomized(small()), tmp_path, "official")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    opened = open_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(value.is_meta for value in opened.model.state_dict().values())


def test_tensors_that_share_memory_in_a_file_are_apart_in_the_model(tmp_path):
    path = write(randomized(small()), tmp_path, "official")
    content = torch.load(path, weights_only=False)
    shared = torch.zeros(64)
    content["model"]["transformer.encoder.layers.0.norm1.bias"] = shared
    content["model"]["transformer.encoder.layers.0.norm2.bias"] = shared
    torch.save(content, path)
    layer = open_checkpoint(path).model.encoder.layers[0]
    with torch.no_grad():
        layer.norm1.bias.fill_(7)
    assert (layer.norm2.bias == 0).all()
