"""Exported files compute what the network computes, for every size, batch and mask, and say so."""

import gc
import json
import shutil
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from PIL import Image

from conditional_detr import CheckpointError, Detector, InputError, InputSize, SettingsError, open_checkpoint
from conditional_detr.benchmark.inputs import Inputs, difference
from conditional_detr.benchmark.ours import ExportedPrediction
from conditional_detr.config import DataSettings
from conditional_detr.data.reading import read_coco, read_split
from conditional_detr.export.exporting import Report, export
from conditional_detr.export.files import set_onnx_record
from conditional_detr.export.parity import pictures as shown
from conditional_detr.exports import ExportRecord, read_export_record
from conditional_detr.inference.fingerprint import fingerprint
from conditional_detr.inference.runtimes.onnxruntime import open_onnx, read_onnx_record
from conditional_detr.inference.runtimes.openvino import open_openvino
from conditional_detr.record import Categories
from tests.checkpoints.models import randomized, save_checkpoint, small
from tests.cli.test_commands import cdetr, refused
from tests.export.conftest import CATEGORIES, checkpoint


@pytest.fixture
def traced(file, monkeypatch) -> None:
    """Trace the network of ``model`` only once, because that takes most of the time."""

    def write(_, about: ExportRecord, out: Path, *__) -> None:
        out.write_bytes(file.read_bytes())
        set_onnx_record(out, about)

    monkeypatch.setattr("conditional_detr.export.exporting.write_onnx", write)


@pytest.fixture
def openvino(model, traced, tmp_path) -> Path:
    export(model, tmp_path / "openvino", "openvino", half=True)
    return tmp_path / "openvino"


def pictures(count: int = 3) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (60 + 30 * i, 90, 3), dtype=np.uint8)) for i in range(count)]


def same(found, expected, tolerance: float = 1e-3) -> None:
    """Compare scores, category by category, because near ones may change places."""
    for ours, theirs in zip(found, expected, strict=True):
        for label in CATEGORIES.ids:
            a, b = (each.scores[each.labels == label].sort().values for each in (ours, theirs))
            assert torch.allclose(a, b, atol=tolerance)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_runtime_finds_what_torch_finds(model, file, runtime, batch_size):
    detector = Detector.from_pretrained(file, runtime=runtime)
    expected = Detector(model, "cpu").predict(pictures(), 0.0, batch_size=batch_size)
    same(detector.predict(pictures(), 0.0, batch_size=batch_size), expected)
    assert detector.record == model.record


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_every_runtime_computes_several_images_at_once(model, file, runtime):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = Detector.from_pretrained(file, runtime=runtime).predict(pictures(6), 0.0)
    finally:
        torch.set_num_threads(threads)
    same(found, Detector(model, "cpu").predict(pictures(6), 0.0))


def test_two_threads_may_be_the_first_that_use_openvino(file):
    """In a process of its own, since only the first use counts, and with threads that take turns often."""
    code = f"""
import numpy, sys, torch
from conditional_detr import Detector
sys.setswitchinterval(1e-6)
torch.set_num_threads(2)
images = [numpy.zeros((60, 90, 3), numpy.uint8)] * 6
print(len(Detector.from_pretrained({str(file)!r}, runtime="openvino").predict(images)))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert found.stdout == "6\n", found.stderr


def test_openvino_is_freed_with_its_detector(file):
    """The garbage collector frees what refers to itself in any thread and order, where OpenVINO ends the process."""
    detector = Detector.from_pretrained(file, runtime="openvino")
    freed = [weakref.ref(detector.pipeline.runtime), weakref.ref(detector.pipeline.runtime.shared(2))]
    gc.disable()
    try:
        del detector
        assert [each() for each in freed] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("runtime", [open_onnx, open_openvino])
@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 97, 131), (2, 160, 64), (5, 33, 200)])
def test_sizes_batches_and_masks_are_free(model, file, runtime, shape):
    batch, height, width = shape
    pixels = torch.randn(batch, 3, height, width)
    mask = torch.zeros(batch, height, width, dtype=torch.bool)
    mask[-1, height * 2 // 3 :] = mask[-1, :, width * 3 // 4 :] = True
    run = runtime(file).runtime
    for given in (None, mask):
        expected = Detector(model, "cpu").pipeline.runtime(pixels, given)
        found = run(pixels, given)
        assert torch.allclose(found.logits, expected.logits, atol=1e-3)
        assert torch.allclose(found.boxes, expected.boxes, atol=1e-4)


def test_the_file_holds_its_proof_and_nothing_of_the_machine(file):
    about = read_onnx_record(file)
    parity = about.proof["parity"]
    assert [each["padded"] for each in parity] == [False, False, False, True]
    assert all(each["boxes"] < 1e-4 for each in parity)
    assert b"site-packages" not in file.read_bytes()
    assert str(Path.home()).encode() not in file.read_bytes()


# Those that exports may have of the operators that TensorRT 10.15 supports (docs/operators.md of onnx-tensorrt).
TENSORRT = """
    Add And Cast Clip Concat ConstantOfShape Conv Cos CumSum Div Equal Expand Gather GatherElements GatherND Identity IsNaN
    LayerNormalization Less MatMul MaxPool Mod Mul Not Pad Relu Reshape Resize Shape Sigmoid Sign Sin Slice Softmax Split Squeeze
    Sub TopK Transpose Unsqueeze Where
"""


def test_tensorrt_lists_every_operator(file):
    model = onnx.load(file)
    assert 9 <= model.opset_import[0].version <= 24
    assert not model.functions
    assert {node.op_type for node in model.graph.node} <= set(TENSORRT.split())
    constants = {each.name for each in model.graph.initializer}
    assert all(node.input[1] in constants for node in model.graph.node if node.op_type in ("Conv", "TopK"))


def test_batch_norm_is_in_the_convolutions(file):
    nodes = onnx.load(file).graph.node
    made = {output for node in nodes for output in node.output}
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    assert len(convolutions) == 13  # the stem, three bottlenecks, two shortcuts, the projection
    assert not any(node.input[1] in made for node in convolutions)  # no weights that are computed


def test_a_folder_says_how_to_use_it_and_its_example_finds_the_same(model, folder, tmp_path):
    text = (folder / "README.md").read_text()
    assert "x (7), y (0), z (90)" in text
    assert "at most 160" in text
    picture = tmp_path / "picture.png"
    pictures(2)[1].save(picture)
    command = [sys.executable, folder / "predict.py", folder / "model.onnx", picture, "0.001"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    expected = Detector(model, "cpu").predict(picture, 0.001)
    assert len(printed) == len(expected) > 20
    for line, theirs in zip(printed[:10], expected, strict=False):
        name, score, *box = line.split()
        assert name == theirs.name
        assert float(score) == pytest.approx(theirs.score, abs=1e-3)
        assert list(map(float, box)) == pytest.approx(theirs.box, abs=0.2)
    nothing = subprocess.run([*command[:-1], "1.1"], capture_output=True, text=True, check=True)
    assert nothing.stdout == ""
    assert nothing.stderr.startswith("no object has a score from 1.1; the best score is 0.")


def test_the_example_needs_no_torch(folder):
    code = (folder / "predict.py").read_text()
    assert len([line for line in code.splitlines() if line]) < 50
    imported = {line.split()[1].split(".")[0] for line in code.splitlines() if line.startswith(("import", "from"))}
    assert imported == {"json", "sys", "numpy", "onnxruntime", "PIL"}


@pytest.mark.parametrize(
    "size",
    [
        InputSize((96, 160), "transformers"),
        InputSize((80, 128), "fit", (80, 128), "padded"),
        InputSize((64, 96), "stretch", boxes="padded-with-mask"),
    ],
)
def test_the_example_follows_every_rule(model, file, tmp_path, size):
    """The record of the file changes, the graph does not."""
    sized = replace(model, record=replace(model.record, input_size=size))
    copy = tmp_path / "model.onnx"
    copy.write_bytes(file.read_bytes())
    set_onnx_record(copy, ExportRecord(sized.record))
    picture = tmp_path / "picture.png"
    pictures(3)[2].save(picture)
    command = [sys.executable, file.with_name("predict.py"), copy, picture, "0.001"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(printed) > 20
    for line, theirs in zip(printed[:5], Detector(sized, "cpu").predict(picture, 0.001), strict=False):
        assert list(map(float, line.split()[-4:])) == pytest.approx(theirs.box, abs=0.2)


def test_softmax_detr_and_a_fixed_size(tmp_path):
    """Images are scaled into the fixed size, and small batches are filled up."""
    plain = checkpoint("detr")
    export(plain, tmp_path / "detr.onnx", size=(64, 96), batch=2, end_to_end=False)
    assert [each.name for each in onnx.load(tmp_path / "detr.onnx").graph.output] == ["logits", "boxes"]
    detector = Detector.from_pretrained(tmp_path / "detr.onnx")
    sized = replace(plain, record=replace(plain.record, input_size=InputSize((64, 96), "fit", (64, 96))))
    expected = Detector(sized, "cpu").predict(pictures(), 0.0, batch_size=3)
    same(detector.predict(pictures(), 0.0, batch_size=3), expected)
    same(detector.predict(pictures(1), 0.0), expected[:1])
    with pytest.raises(SettingsError, match="64x96"):
        detector.set_sides((96, 160))


def test_half_precision_halves_the_file(model, traced, file, tmp_path):
    out = tmp_path / "half.onnx"
    report = export(model, out, half=True)
    assert out.stat().st_size < 0.8 * file.stat().st_size  # of so small a network, the graph takes a part
    assert max(each.scores for each in report.parity) < 5e-2
    expected = Detector(model, "cpu").predict(pictures(1), 0.0)
    same(Detector.from_pretrained(out).predict(pictures(1), 0.0), expected, 1e-2)


def test_an_openvino_folder(model, openvino):
    detector = Detector.from_pretrained(openvino)
    assert detector.runtime == "OpenVINO on cpu"
    assert detector.record == model.record
    same(detector.predict(pictures(), 0.0), Detector(model, "cpu").predict(pictures(), 0.0), 1e-2)
    assert {each.name for each in openvino.iterdir()} == {"model.xml", "model.bin", "README.md"}


def test_a_program_of_torch(model, tmp_path):
    out = tmp_path / "model.pt2"
    export(model, out, "torch")
    extra = {"conditional_detr.json": ""}
    program = torch.export.load(out, extra_files=extra).module()
    assert read_export_record(extra["conditional_detr.json"], out).model == model.record
    pixels = torch.randn(3, 3, 70, 130)
    logits, *_ = program(pixels, torch.zeros(3, 70, 130, dtype=torch.bool))
    assert torch.allclose(logits, Detector(model, "cpu").pipeline.runtime(pixels).logits, atol=1e-4)
    with pytest.raises(SettingsError, match=r"torch\.export\.load"):
        Detector.from_pretrained(out)


@pytest.fixture
def data(shapes_root):
    return read_coco(shapes_root / "annotations/instances_val2017.json", [shapes_root / "val2017"])


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_int8(to, traced, data, tmp_path):
    """Convolutions are quantized, and the report holds AP before and after."""
    named = replace(checkpoint(), record=replace(checkpoint().record, categories=data.categories))
    report: Report = export(named, tmp_path / "int8", to, calibration=data, data=data, max_ap_drop=1.0)
    assert report.measured.ap is not None
    assert report.measured.milliseconds is not None
    detector = Detector.from_pretrained(tmp_path / "int8")
    found = detector.predict(pictures(1), 0.0)[0]
    expected = Detector(named, "cpu").predict(pictures(1), 0.0)[0]
    assert not torch.equal(found.scores, expected.scores)  # it is quantized
    assert torch.allclose(found.scores, expected.scores, atol=0.1)
    if to == "onnx":
        nodes = onnx.load(tmp_path / "int8/model.onnx").graph.node
        quantized = [node for node in nodes if node.op_type == "QuantizeLinear"]
        assert len(quantized) > 10


def test_int8_that_loses_too_much_is_not_written(traced, data, tmp_path, monkeypatch):
    named = replace(checkpoint(), record=replace(checkpoint().record, categories=data.categories))
    measured = iter([0.5, 0.4])

    def evaluate(*_, **__):
        return type("Metrics", (), {"values": {"AP": next(measured)}}), []

    monkeypatch.setattr("conditional_detr.export.exporting.evaluate_detector", evaluate)
    with pytest.raises(CheckpointError, match=r"AP 0\.4000 where float32 has 0\.5000"):
        export(named, tmp_path / "int8.onnx", calibration=data, data=data)
    assert list(tmp_path.iterdir()) == []


def test_int8_of_a_model_that_finds_nothing_is_not_written(traced, data, tmp_path, monkeypatch):
    named = replace(checkpoint(), record=replace(checkpoint().record, categories=data.categories))
    metrics = type("Metrics", (), {"values": {"AP": 0.0}})
    monkeypatch.setattr("conditional_detr.export.exporting.evaluate_detector", lambda *_, **__: (metrics, []))
    with pytest.raises(CheckpointError, match="nobody can tell what INT8 loses"):
        export(named, tmp_path / "int8.onnx", calibration=data, data=data)


def test_a_graph_that_computes_something_else_is_not_written(model, file, tmp_path, monkeypatch):
    changed = onnx.load(file)
    for tensor in changed.graph.initializer:
        if tensor.name.startswith("network.class_head"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.5), tensor.name))
    monkeypatch.setattr(
        "conditional_detr.export.exporting.write_onnx", lambda *arguments: onnx.save(changed, arguments[2])
    )
    with pytest.raises(CheckpointError, match="its scores differ from those in PyTorch"):
        export(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_torch_can_t_export_is_told_in_one_sentence(model, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("a guard\nof many lines")

    monkeypatch.setattr("conditional_detr.export.exporting.write_onnx", fail)
    with pytest.raises(CheckpointError, match=r"\(a guard\); give a fixed size and batch") as caught:
        export(model, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)


# --- files that are not ours, or broken ---


def test_foreign_files_are_refused(tmp_path, file):
    graph = helper.make_graph([], "foreign", [], [])
    onnx.save(helper.make_model(graph), tmp_path / "foreign.onnx")
    (tmp_path / "cut.onnx").write_bytes(file.read_bytes()[:5000])
    (tmp_path / "text.onnx").write_text("not a model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name, message in (
        ("foreign", "not written by cdetr export"),
        ("cut", "cut off"),
        ("text", "not an ONNX file"),
        ("empty", "not"),
        ("absent", "does not exist"),
    ):
        for runtime in ("onnxruntime", "openvino"):
            with pytest.raises(CheckpointError, match=message):
                Detector.from_pretrained(tmp_path / f"{name}.onnx", runtime=runtime)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("place", ["weights", "a function"])
def test_a_file_can_t_make_a_runtime_read_others(tmp_path, file, runtime, place):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(1000))
    (tmp_path / "in").mkdir()
    model = onnx.load(file)
    if place == "weights":
        tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
        tensor.ClearField("raw_data")
    else:
        constant = helper.make_node("Constant", [], ["x"], value=helper.make_tensor("x", 1, [250], [0.0] * 250))
        model.functions.append(helper.make_function("local", "f", [], ["x"], [constant], [helper.make_opsetid("", 18)]))
        tensor = model.functions[-1].node[0].attribute[0].t
        tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    onnx.save(model, tmp_path / "in/model.onnx")
    with pytest.raises(CheckpointError, match="keeps weights in other files"):
        Detector.from_pretrained(tmp_path / "in/model.onnx", runtime=runtime)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"version": 99}', "newer conditional-detr"),
        ('{"version": 1}', "damaged"),
        ('{"version": 1, "record": {"version": 99}}', "newer conditional-detr"),
    ],
)
def test_damaged_records(tmp_path, file, text, message):
    model = onnx.load(file)
    for each in model.metadata_props:
        each.value = text
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match=message):
        Detector.from_pretrained(tmp_path / "model.onnx")


def test_a_record_that_contradicts_the_graph(model, tmp_path, file):
    """It names more categories than the graph has logits."""
    (tmp_path / "model.onnx").write_bytes(file.read_bytes())
    more = Categories((1, 2, 3, 4), ("a", "b", "c", "d"))
    set_onnx_record(tmp_path / "model.onnx", ExportRecord(replace(model.record, categories=more, thresholds=None)))
    for runtime in ("onnxruntime", "openvino"):
        with pytest.raises(CheckpointError, match="logits"):
            Detector.from_pretrained(tmp_path / "model.onnx", runtime=runtime)


def test_weights_of_another_export(openvino):
    """They have the same size, so OpenVINO would take them."""
    before = fingerprint(Detector.from_pretrained(openvino))
    weights = openvino / "model.bin"
    content = bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.bin is not the one that was exported with model\.xml"):
        Detector.from_pretrained(openvino)
    text = (openvino / "model.xml").read_text()
    (openvino / "model.xml").write_text(text.replace("conditional_detr_weights", "x"))  # of an earlier version
    assert fingerprint(Detector.from_pretrained(openvino)) != before


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("edit", ["renamed input", "no boxes", "fixed batch", "rank of logits"])
def test_a_graph_that_is_not_what_its_record_says(edit, runtime, tmp_path, file):
    model = onnx.load(file)
    graph = model.graph
    if edit == "renamed input":
        for node in graph.node:
            node.input[:] = ["images" if name == "pixels" else name for name in node.input]
        next(each for each in graph.input if each.name == "pixels").name = "images"
    elif edit == "no boxes":
        graph.output.remove(next(each for each in graph.output if each.name == "boxes"))
    elif edit == "fixed batch":
        for each in (*graph.input, *graph.output):
            each.type.tensor_type.shape.dim[0].dim_value = 3
    else:
        graph.node.append(helper.make_node("ReduceMax", ["logits"], ["flat"], keepdims=0))
        for output in graph.output:
            if output.name == "logits":
                output.name = "flat"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match="of its graph"):
        Detector.from_pretrained(tmp_path / "model.onnx", runtime=runtime)


@pytest.mark.parametrize(
    "change", [{"batch": 1.5}, {"batch": 1048575}, {"version": "1"}, {"size": [64, 64, 64]}, {"batch": True}]
)
def test_numbers_of_a_record_are_checked(change, tmp_path, file):
    model = onnx.load(file)
    (entry,) = model.metadata_props
    entry.value = json.dumps({**json.loads(entry.value), **change})
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match="record is damaged"):
        Detector.from_pretrained(tmp_path / "model.onnx")


def test_what_an_export_can_t_do_is_said(file, openvino, tmp_path):
    detector = Detector.from_pretrained(file)
    for action in (lambda: detector.model, detector.optimize, lambda: detector.save_pretrained(tmp_path / "x")):
        with pytest.raises(SettingsError, match="is an export"):
            action()
    for each in (file, file.parent, openvino):
        with pytest.raises(CheckpointError, match="give the checkpoint that it was exported from"):
            open_checkpoint(each)
    with pytest.raises(SettingsError, match="openvino"):
        Detector.from_pretrained(openvino, runtime="onnxruntime")
    with pytest.raises(SettingsError, match="cdetr export"):
        Detector.from_pretrained("starter:tiny", runtime="openvino")
    with pytest.raises(SettingsError, match="names"):
        Detector.from_pretrained(file, names=["a", "b", "c"])
    with pytest.raises(SettingsError, match="does not exist"):
        Detector.from_pretrained(file, "nonsense")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out": "x.xml", "to": "openvino"}, "a new folder"),
        ({"out": "x.onnx", "to": "torch"}, r"\.pt2"),
        ({"out": "x.engine", "to": "onnx"}, "a name in .onnx or a folder"),
        ({"out": "taken", "to": "onnx"}, "exists already"),
        ({"out": "x.onnx", "size": (8, 8)}, "below 32"),
        ({"out": "x.onnx", "size": (10**6, 10**6)}, "pixels"),
        ({"out": "x.pt2", "to": "torch", "half": True}, "leave it out"),
        ({"out": "x.onnx", "opset": 5}, "operators"),
    ],
)
def test_arguments_that_do_not_go_together(model, tmp_path, arguments, message):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/x").touch()
    with pytest.raises(SettingsError, match=message):
        export(model, **{**arguments, "out": tmp_path / arguments["out"]})


@pytest.mark.filterwarnings("ignore")  # of transformers and torch's exporter
def test_a_swin_backbone_is_exported_for_one_size(tmp_path):
    """Its windows depend on the size of the image."""
    pytest.importorskip("transformers")
    shape = {"embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "out_features": ["stage2"]}
    swin = randomized(small(backbone={"model_type": "swin", **shape}), CATEGORIES, InputSize((96, 160)))
    with pytest.raises(CheckpointError, match=r"can't be computed \(.*Reshape.*\); give a fixed size and batch"):
        export(swin, tmp_path / "any.onnx")
    parity = export(swin, tmp_path / "one.onnx", size=(96, 128), batch=1).parity
    assert max(each.logits for each in parity) < 1e-4
    assert Detector.from_pretrained(tmp_path / "one.onnx").predict(pictures(1)[0], 0.0)


def test_threads_may_share_a_detector(file):
    for runtime in ("onnxruntime", "openvino"):
        detector = Detector.from_pretrained(file, runtime=runtime)
        images = pictures(3) * 4
        expected = [detector.predict(image, 0.0).scores for image in images]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(partial(detector.predict, threshold=0.0), images))
        assert all(torch.allclose(a.scores, b, atol=1e-5) for a, b in zip(found, expected, strict=True))


def test_the_command_line(model, traced, tmp_path, shapes_root):
    named = read_coco(shapes_root / "annotations/instances_val2017.json", [shapes_root / "val2017"]).categories
    save_checkpoint(replace(model, record=replace(model.record, categories=named)), tmp_path / "model")
    out = tmp_path / "model.onnx"
    record = json.loads(cdetr("export", tmp_path / "model", out, "--check", shapes_root, "--json").stdout)
    assert record["ap"][0] == pytest.approx(record["ap"][1], abs=1e-3)
    evaluated = cdetr("evaluate", out, f"data.root={shapes_root}", "--json")
    assert json.loads(evaluated.stdout)["AP"] == pytest.approx(record["ap"][1], abs=1e-6)
    refused(cdetr("attention", out, shapes_root / "val2017/000001.png"), "is an export")
    refused(cdetr("predict", out, shapes_root, "--optimize"), "leave out --optimize")
    refused(cdetr("export", out, tmp_path / "again.onnx"), "give the checkpoint")
    refused(cdetr("export", tmp_path / "model", tmp_path / "x.onnx", "data.val=none"), "--int8 or --check")
    for change in ("data.eval_short_side=64", "data.flip=0", "train.lr=1"):
        arguments = ("export", tmp_path / "model", tmp_path / "x.onnx", "--check", shapes_root, change)
        refused(cdetr(*arguments), "settings of how data is read")
    refused(cdetr("export", tmp_path / "model", tmp_path / "x.onnx", "--max-ap-drop", 0.1), "--max-ap-drop is for INT8")


def test_damaged_images_are_left_out_where_that_is_asked(model, tmp_path, shapes_root):
    root = shutil.copytree(shapes_root, tmp_path / "data")
    image = root / "val2017" / "000001.png"
    data = read_split(DataSettings(root=root), "val")
    image.write_bytes(image.read_bytes()[:200])
    assert len(shown(data, "skip")) == 3
    with pytest.raises(InputError, match="is damaged"):
        shown(data, "stop")


def test_the_benchmark_measures_exports(model, file):
    inputs = Inputs(2, 96, 128)
    expected = Detector(model, "cpu").pipeline.runtime(inputs.images().pixels)
    for runtime in ("onnxruntime", "openvino"):
        found = ExportedPrediction(file, inputs, runtime).outputs()
        assert max(difference([each.numpy() for each in found], [each.numpy() for each in expected])) < 1e-3
    refused(cdetr("benchmark", "conditional-detr_tiny_shapes", "--runtime", "tflite"), "give onnxruntime or openvino")
    options = ("--size", "72x96", "--repeats", "1", "--json")
    result = cdetr("benchmark", "conditional-detr_tiny_shapes", "--runtime", "onnxruntime-int8", *options)
    (measured,) = json.loads(result.stdout)["measurements"]
    assert [row["name"] for row in measured["rows"]] == ["plain", "--optimize", "onnxruntime-int8"]
    assert 1e-4 < measured["differences"]["onnxruntime-int8"][0] < 1  # 8 bits are less exact than 32
