"""Arguments that several commands share, with their checks."""

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from conditional_detr.errors import SettingsError

if TYPE_CHECKING:
    from conditional_detr.inference.detector import Detector, Threshold
    from conditional_detr.inference.runtimes import RuntimeName
    from conditional_detr.input_size import BoxFrame

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A run folder, a checkpoint folder, a .pth file (official, MMDetection), a Hugging Face hub id, a starter such as "
        "starter:lite0, or an export.",
    ),
]
Weights = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A run folder, a checkpoint folder, a .pth file (official, MMDetection), a Hugging Face hub id, or a starter such as "
        "starter:lite0.",
    ),
]
Dilation = Annotated[
    bool | None,
    typer.Option("--dc5/--no-dc5", help="Whether SOURCE is a DC5 model, for .pth files that do not record it."),
]
Boxes = Annotated[
    Literal["image", "padded", "padded-with-mask"] | None,
    typer.Option(
        help="Frame that predicted boxes are relative to, for models fine-tuned with transformers on padded images.",
        show_default=False,
    ),
]
Names = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|NAME,...",
        help="Names of the categories of SOURCE, for files without them: a text file with a name in every line, a COCO annotation "
        "file, a YOLO data.yaml, or the names with commas.",
        show_default=False,
    ),
]
Runtime = Annotated[
    Literal["auto", "torch", "onnxruntime", "openvino"],
    typer.Option(help="What computes the network; auto: PyTorch for checkpoints, the fastest installed for exports."),
]
Optimize = Annotated[
    bool,
    typer.Option("--optimize", help="Run faster: equal results within rounding on a CPU, half precision on a GPU."),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile", help="Like --optimize, and use torch.compile, which takes up to a minute for the first images."
    ),
]


# Argument of the library (``InputError.argument``) -> option of the command line.
OPTIONS = {
    "dilation": "--dc5 or --no-dc5; in training model.dilation=true or false",
    "boxes": "--boxes",
    "names": "--names",
    "timm_backbone": "--timm-backbone",
    "threshold": "--threshold",
    "batch_size": "--batch-size",
    "size": "--size",
    "workers": "--workers",
    "runtime": "--runtime",
    "opset": "--opset",
    "max_ap_drop": "--max-ap-drop",
    "side": "--tiles",
    "overlap": "--overlap",
    "port": "--port",
    "host": "--host",
    "folder": "--out",
    "shard": "--shard",
    "engine": "--engine",
    "actors": "--actors",
    "gpus_per_actor": "--gpus-per-actor",
    "format": "--format",
    "repo_id": "OWNER/NAME",
    "revision": "SOURCE@REVISION",
}


def threshold_of(text: str) -> "Threshold":
    """Read the option. Raises ``SettingsError``."""
    with contextlib.suppress(ValueError):
        if text == "auto":
            return "auto"
        if 0 <= (value := float(text)) <= 1:
            return value
    raise SettingsError(f"--threshold is {text!r}; give a number in 0..1, or auto")


def check_output(file: Path, inputs: Iterable[Path] = ()) -> None:
    """Raise ``SettingsError`` when a file to be written would replace a link, a folder, a device or an input."""
    if os.path.lexists(file) and (file.is_symlink() or not file.is_file()):
        raise SettingsError(f"{file} is a link, a folder or a device, which a file would replace; give another name")
    if any(os.path.realpath(file) == os.path.realpath(path) for path in inputs):
        raise SettingsError(f"{file} would be replaced by a file of that name; give another name")


def check_picture(out: Path, inputs: Iterable[Path], argument: str = "--out") -> None:
    """Raise ``SettingsError`` when ``out`` has no known image suffix, and as ``check_output`` does."""
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".pdf"):
        raise SettingsError(f"{argument} {out} has no known suffix; end the name in .png, .jpg or .pdf")
    check_output(out, inputs)


def size_of(text: str) -> tuple[int, int]:
    """Read a height and a width in pixels, such as 800x1066. Raises ``SettingsError``."""
    from conditional_detr.input_size import MAX_PIXELS

    found = re.fullmatch(r"([1-9]\d{0,8})x([1-9]\d{0,8})", text)
    if found is None:
        raise SettingsError(f"--size {text}: give height and width in pixels, such as 800x1066")
    height, width = int(found[1]), int(found[2])
    if height * width > MAX_PIXELS:
        raise SettingsError(f"--size {text}: give a size of at most {MAX_PIXELS} pixels")
    return height, width


def tell_runtime(detector: "Detector") -> None:
    """Say on standard error which runtime was chosen for an exported model."""
    from conditional_detr.cli.log import note

    if detector.exported_file is not None:
        note(f"{detector.exported_file} runs with {detector.runtime}")


def open_detector(
    source: str,
    device: str | None = None,
    *,
    dilation: bool | None,
    boxes: "BoxFrame | None",
    names: str | None,
    runtime: "RuntimeName",
    optimize: bool,
    compile: bool,
) -> "Detector":
    """Open a detector as the options say. device: as in ``Detector.from_pretrained``, whose errors it raises."""
    from conditional_detr.inference.detector import Detector

    detector = Detector.from_pretrained(source, device, dilation=dilation, boxes=boxes, names=names, runtime=runtime)
    if optimize or compile:
        optimized(detector, compile)
    return detector


def optimized(detector: "Detector", compile: bool) -> None:
    """Switch the detector to its fast path, and on a CPU keep freed memory in this process."""
    from conditional_detr.allocator import keep_freed_memory

    if detector.exported_file is not None:
        raise SettingsError(
            f"{detector.exported_file} is an export, which is fast already; leave out --optimize and --compile"
        )
    if detector.device.type == "cpu":
        keep_freed_memory()
    detector.optimize(compile)
