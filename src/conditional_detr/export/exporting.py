"""Export a model: write the file, measure what it computes, and refuse a file that computes something else."""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.config import EvaluationSettings
from conditional_detr.data.annotations import Annotations
from conditional_detr.data.loading import usable_images
from conditional_detr.errors import CheckpointError, InputError, SettingsError
from conditional_detr.evaluation.coco import evaluate_detector
from conditional_detr.export.files import (
    halve_onnx,
    set_onnx_record,
    write_onnx,
    write_openvino,
    write_torch,
)
from conditional_detr.export.graph import torch_program
from conditional_detr.export.int8 import calibration_batches, quantize
from conditional_detr.export.parity import FLOAT32, HALF, Difference, as_record, check, differences, pictures
from conditional_detr.export.readme import readme
from conditional_detr.exports import MAX_BATCH, MODELS, ExportRecord
from conditional_detr.files import is_free, whole_file, whole_folder
from conditional_detr.inference.detector import Detector
from conditional_detr.inference.postprocess import PUBLISHED_COUNT
from conditional_detr.inference.runtimes.exported import Exported, run_export
from conditional_detr.inference.runtimes.onnxruntime import open_onnx
from conditional_detr.inference.runtimes.openvino import open_openvino
from conditional_detr.inference.runtimes.torch import TorchRuntime
from conditional_detr.input_size import InputSize
from conditional_detr.structures import Outputs

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Target = Literal["onnx", "openvino", "torch"]
SUFFIXES: dict[Target, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
_TIMED = 10  # images
_SUFFIXES_OF_FILES = frozenset((".onnx", ".xml", ".bin", ".pt2", ".pt", ".pth", ".engine", ".plan", ".tflite", ".pb"))


@dataclass(frozen=True)
class Measured:
    """AP, bytes and milliseconds per image of the network in PyTorch (before) and of the export (after).

    AP and milliseconds are None where no data was given.
    """

    ap: tuple[float, float] | None
    milliseconds: tuple[float, float] | None
    bytes: tuple[int, int]


@dataclass(frozen=True)
class Report:
    """What was exported. parity: differences from PyTorch, image by image; with INT8 those of the file before it."""

    out: Path
    parity: list[Difference]
    measured: Measured

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain containers."""
        return {"out": str(self.out), "parity": as_record(self.parity), **_proof_of(self.measured)}


def export(
    checkpoint: Checkpoint,
    out: str | Path,
    to: Target = "onnx",
    *,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    end_to_end: bool = True,
    half: bool = False,
    opset: int | None = None,
    calibration: Annotations | None = None,
    data: Annotations | None = None,
    max_ap_drop: float = 0.005,
    workers: int = 0,
    on_error: Literal["stop", "skip"] = "stop",
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Report:
    """Write a model for another runtime, with its record inside, after checking that it computes the same.

    out: a new file (``.onnx``, ``.pt2``), or a new folder, which also gets a README and an example. size: fixed (height, width)
    that images are scaled and padded to; batch: fixed number of images; both are free by default. end_to_end: add outputs with
    the best scores, category ids and corners. half: store weights in half precision, compute in float32. opset: version of
    ONNX's operators. calibration: annotated images to quantize the convolutions to INT8 with. data: annotated images, others than
    those, to measure AP and speed on. max_ap_drop: most that INT8 may lose there, in 0..1. workers: number of loading processes.
    on_error: what to do about an image that can't be used. on_stage: called with what is done next.

    Raises ``SettingsError`` for arguments that do not go together or lack a package, and ``CheckpointError`` when the file
    computes something else, or INT8 loses more than ``max_ap_drop``. Then nothing is written. The network is moved to the CPU.
    """
    out, suffix = Path(out), SUFFIXES[to]
    whole = out.suffix == suffix and to != "openvino"
    _check_arguments(out, to, calibration, data, half, size)
    if batch is not None and not 1 <= batch <= MAX_BATCH:
        raise SettingsError(f"batch {batch} is not in 1 to {MAX_BATCH}; give another", argument="batch")
    checkpoint.model.cpu().eval()
    if size is not None:
        input_size = InputSize(size, "fit", size, checkpoint.input_size.boxes)
        checkpoint = replace(checkpoint, record=replace(checkpoint.record, input_size=input_size))
    about = ExportRecord(checkpoint.record, batch, size, end_to_end)
    reference = TorchRuntime(checkpoint.model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / MODELS[suffix]
        onnx_file = file.with_suffix(".onnx")
        on_stage("tracing the network")
        with _telling(out, fixed=size is not None and batch is not None):
            program = torch_program(checkpoint, about) if to == "torch" else None
            if program is not None:
                write_torch(program, about, file)
            else:
                write_onnx(checkpoint, about, onnx_file, opset)
            if half and to == "onnx":
                halve_onnx(onnx_file)
            if to == "openvino":
                write_openvino(onnx_file, about, file, half=half)
            on_stage("comparing with PyTorch")
            parity = differences(reference, _opened(file, about, program).runtime, about, pictures(data, on_error))
        check(parity, HALF if half else FLOAT32, out)
        if calibration is not None:
            on_stage("quantizing to INT8")
            small = onnx_file.with_stem("int8")
            quantize(onnx_file, calibration_batches(calibration, about, on_error=on_error), small)
            small.replace(onnx_file)
            if to == "openvino":
                write_openvino(onnx_file, about, file)
        on_stage("measuring")
        measured = _measure(checkpoint, _opened(file, about, program), data, workers, on_error)
        if calibration is not None:
            _check_drop(measured, max_ap_drop, out)
        proof = {"int8": calibration is not None, "half": half, "parity": as_record(parity), **_proof_of(measured)}
        about = replace(about, proof=proof)
        if program is not None:
            write_torch(program, about, file)
        elif to == "onnx":
            set_onnx_record(file, about)
        else:
            write_openvino(onnx_file, about, file, half=half)
        out.parent.mkdir(parents=True, exist_ok=True)
        if whole:
            with whole_file(out) as partial:
                shutil.copyfile(file, partial)
        else:
            with whole_folder(out) as partial:
                _fill(partial, file, about, parity, measured)
    return Report(out, parity, measured)


@contextmanager
def _telling(out: Path, *, fixed: bool) -> Generator[None]:
    """Turn errors of torch's exporter and of runtimes, of which there are many kinds, into one sentence. fixed: whether size and batch are."""
    remedy = "give another kind" if fixed else "give a fixed size and batch, or another kind"
    try:
        yield
    except CheckpointError as error:  # of a runtime
        raise CheckpointError(f"{out} is not written: {str(error).partition('; ')[0]}; {remedy}") from error
    except (InputError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0][:200]
        raise CheckpointError(f"{out} is not written: this network can't be exported ({reason}); {remedy}") from error


def _check_arguments(
    out: Path,
    to: Target,
    calibration: Annotations | None,
    data: Annotations | None,
    half: bool,
    size: tuple[int, int] | None,
) -> None:
    if to == "openvino" and out.suffix in _SUFFIXES_OF_FILES:
        raise SettingsError(f"{out}: an OpenVINO model is two files; give the name of a new folder", argument="out")
    if out.suffix in _SUFFIXES_OF_FILES - {SUFFIXES[to]}:
        raise SettingsError(f"{out} does not fit to={to!r}; give a name in {SUFFIXES[to]} or a folder", argument="out")
    if not is_free(out) or (out.is_dir() and out.suffix in _SUFFIXES_OF_FILES):
        raise SettingsError(f"{out} exists already; give another name, or remove it", argument="out")
    if calibration is not None and data is None:
        raise SettingsError("INT8 needs annotated images that it was not calibrated with, to measure the AP it loses")
    if calibration is not None and (half or to == "torch"):
        raise SettingsError(
            "INT8 is for ONNX and OpenVINO, in the place of half precision; leave one out", argument="half"
        )
    if half and to == "torch":
        raise SettingsError("half precision is for ONNX and OpenVINO; leave it out", argument="half")
    if size is not None:
        try:
            InputSize(size, "fit", size)
        except ValueError as error:
            raise SettingsError(f"size: {error}", argument="size") from error
        if min(size) < 32:
            raise SettingsError(f"size {size[0]}x{size[1]} is below 32 pixels; give a larger one", argument="size")


class _Program:
    """A program of ``torch.export`` as a runtime, to compare it."""

    name = "torch.export"

    def __init__(self, program: "ExportedProgram", export: ExportRecord) -> None:
        self.module, self.export = program.module(), export

    def __call__(self, pixels: Tensor, padding_mask: Tensor | None = None) -> Outputs:
        return run_export(lambda *inputs: self.module(*inputs)[:2], self.export, pixels, padding_mask)

    def shared(self, streams: int) -> None:
        """Return None: it computes one image at a time."""


def _opened(file: Path, export: ExportRecord, program: "ExportedProgram | None") -> Exported:
    """Open an exported file; of a program of torch, whose file could run code, take the one that was written."""
    if program is not None:
        return Exported(export.model, _Program(program, export), torch.device("cpu"), file)
    return (open_openvino if file.suffix == ".xml" else open_onnx)(file)


def _measure(
    checkpoint: Checkpoint,
    exported: Exported,
    data: Annotations | None,
    workers: int,
    on_error: Literal["stop", "skip"],
) -> Measured:
    weights = sum(value.numel() * value.element_size() for value in checkpoint.model.state_dict().values())
    files = [exported.file, *([exported.file.with_suffix(".bin")] if exported.file.suffix == ".xml" else [])]
    size = weights, sum(each.stat().st_size for each in files)
    if data is None:
        return Measured(None, None, size)
    both = [Detector(checkpoint, "cpu"), Detector(exported)]
    evaluated = (evaluate_detector(each, data, EvaluationSettings(), workers, on_error=on_error)[0] for each in both)
    ap = [metrics.values["AP"] for metrics in evaluated]
    seconds: list[list[float]] = [[], []]
    runtimes = [each.pipeline.runtime for each in both]
    pipeline = both[1].pipeline
    for image in islice(usable_images(data, range(len(data)), on_error), _TIMED):
        batch = pipeline.batch([pipeline.prepare(image)])
        for runtime, found in zip(runtimes, seconds, strict=True):
            runtime(batch.pixels, batch.padding_mask)  # the first call with a size is slower
            started = time.perf_counter()
            runtime(batch.pixels, batch.padding_mask)
            found.append(time.perf_counter() - started)
    milliseconds = tuple(statistics.median(each) * 1e3 for each in seconds)
    return Measured((ap[0], ap[1]), (milliseconds[0], milliseconds[1]), size)


def _proof_of(measured: Measured) -> dict[str, Any]:
    found: dict[str, Any] = {"bytes": list(measured.bytes)}
    if measured.ap is not None and measured.milliseconds is not None:
        found |= {"ap": list(measured.ap), "milliseconds": list(measured.milliseconds)}
    return found


def _check_drop(measured: Measured, most: float, out: Path) -> None:
    assert measured.ap is not None
    before, after = measured.ap
    if before <= 0 and most < 1:
        raise CheckpointError(
            f"{out} is not written: in float32 AP is {before:g} on these images, so nobody can tell what INT8 loses; give images of "
            f"the objects that the model finds",
            argument="max_ap_drop",
        )
    if not before - after <= most:
        raise CheckpointError(
            f"{out} is not written: INT8 has AP {after:.4f} where float32 has {before:.4f}, a loss of more than {most:g}; give more "
            f"varied images, or allow the loss",
            argument="max_ap_drop",
        )


def _fill(folder: Path, file: Path, export: ExportRecord, parity: Sequence[Difference], measured: Measured) -> None:
    """Copy the model into a folder, with a README and, for ONNX, an example without PyTorch."""
    files = {file.name: "the model"}
    shutil.copyfile(file, folder / file.name)
    if file.suffix == ".xml":
        weights = file.with_suffix(".bin")
        files[weights.name] = "its weights"
        shutil.copyfile(weights, folder / weights.name)
    if file.suffix == ".onnx" and export.end_to_end:
        files["predict.py"] = "an example with NumPy, Pillow and ONNX Runtime"
        shutil.copyfile(example_file(), folder / "predict.py")
    architecture = export.model.architecture
    pairs = architecture.queries * (1 if architecture.softmax else len(export.model.categories))
    top = min(max(PUBLISHED_COUNT, architecture.queries), pairs)
    text = readme(export, top, files, table(parity, measured))
    (folder / "README.md").write_text(text, encoding="utf-8")


def example_file() -> Path:
    """Return the example that is copied beside an ONNX file."""
    return Path(__file__).with_name("example.py")


def table(parity: Sequence[Difference], measured: Measured) -> list[str]:
    """Return what was measured, as lines of text."""
    lines = [
        f"- {each.what}: logits differ from PyTorch by at most {each.logits:.1e}, scores by {each.scores:.1e}, boxes by "
        f"{each.boxes:.1e} of the image"
        for each in parity
    ]
    before, after = measured.bytes
    lines.append(f"- {before / 2**20:.1f} MiB of weights in PyTorch, {after / 2**20:.1f} MiB here")
    if measured.ap is not None and measured.milliseconds is not None:
        if measured.ap[0] < 0:
            lines.append("- AP can't be measured, because the images have no annotated objects")
        else:
            lines.append(f"- AP {measured.ap[0]:.4f} in PyTorch, {measured.ap[1]:.4f} here")
        lines.append(
            f"- {measured.milliseconds[0]:.1f} ms per image in PyTorch, {measured.milliseconds[1]:.1f} ms here "
            f"(median of {_TIMED} images, in turns, on the machine of the export)"
        )
    return lines
