"""``cdetr benchmark``."""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from conditional_detr.cli.log import say
from conditional_detr.cli.options import Compile, Dilation, size_of
from conditional_detr.cli.tables import aligned
from conditional_detr.errors import SettingsError

if TYPE_CHECKING:
    from conditional_detr.checkpoints.checkpoint import Checkpoint


def command(
    source: Annotated[
        str,
        typer.Argument(metavar="[SOURCE|PRESET]", help="A checkpoint of any format, or a preset with random weights."),
    ] = "conditional-detr_r50_8xb2-50e_coco",
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[model.key=value ...]", help="Changes to the network of the preset.")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HxW", help="Image size in pixels; may be repeated (default: 800x1066, with --train 480x640)."
        ),
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="Images per batch; may be repeated (default: 1, with --train 2).")
    ] = None,
    train: Annotated[bool, typer.Option("--train", help="Measure training steps instead of predictions.")] = False,
    against: Annotated[
        Literal["transformers"] | None, typer.Option(help="Also measure this library, in turns, with the same weights.")
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[onnxruntime|openvino][-int8]",
            help="Also measure an ONNX export of the network in this runtime, on the CPU; may be repeated. "
            "With -int8, its convolutions are quantized, with ranges of random pixels: for the speed only.",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Number of measurements of each kind.")] = 7,
    compile: Compile = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    dilation: Dilation = None,
) -> None:
    """Measure size, speed and memory of a network on this machine, such as: cdetr benchmark --against transformers"""
    sizes = [size_of(text) for text in size or ["480x640" if train else "800x1066"]]
    batches = batch or [2 if train else 1]
    if train and runtime:
        raise SettingsError("--runtime is for predictions; leave it out with --train")
    if train and compile:
        raise SettingsError("--compile is for predictions; leave it out with --train")

    import torch

    from conditional_detr.benchmark.comparison import INT8, RUNTIMES, Comparison
    from conditional_detr.benchmark.counting import mean_multiply_adds
    from conditional_detr.benchmark.inputs import Inputs
    from conditional_detr.benchmark.measuring import matrix_rate
    from conditional_detr.inference.devices import find_device

    for name in runtime or ():
        if name.removesuffix(INT8) not in RUNTIMES:
            raise SettingsError(f"--runtime {name}: give {' or '.join(RUNTIMES)}, with or without {INT8} behind it")
    checkpoint = _checkpoint(source, settings or [], dilation, train and against is not None)
    if against and (checkpoint.architecture.dilation or checkpoint.architecture.decoder != "conditional"):
        raise SettingsError(f"{source}: transformers has no such Conditional DETR without timm; leave out --against")
    if against and train and not checkpoint.model.backbone.norm_frozen:
        raise SettingsError(f"{source} trains its batch norm, which transformers can't; add model.batch_norm=frozen")
    device = find_device()
    rate = matrix_rate(device)
    record: dict[str, Any] = {
        "source": source,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in checkpoint.model.parameters()),
        "mean_multiply_adds": mean_multiply_adds(
            checkpoint.architecture, len(checkpoint.categories), checkpoint.input_size
        ),
        "matrix_multiply_adds_per_second": rate,
        "measurements": [],
    }
    if not as_json:
        say(*_heading(record))
    with tempfile.TemporaryDirectory() as folder:
        comparison = Comparison(checkpoint, Path(folder), against=against is not None, repeats=repeats)
        exported = comparison.export(runtime or [])
        for count in batches:
            for height, width in sizes:
                inputs = Inputs(count, height, width)
                if train:
                    measured = comparison.training(inputs)
                else:
                    measured = comparison.prediction(inputs, compile=compile, exported=exported, matrix_rate=rate)
                record["measurements"].append(measured)
                if not as_json:
                    say(*_table(measured))
    if as_json:
        typer.echo(json.dumps(record))


def _checkpoint(source: str, overrides: list[str], dilation: bool | None, auxiliary: bool) -> "Checkpoint":
    """Open a checkpoint, or build a preset. auxiliary: give a preset the norm that transformers has with auxiliary losses."""
    from conditional_detr.benchmark.presets import preset_checkpoint
    from conditional_detr.checkpoints.opening import open_checkpoint
    from conditional_detr.config import preset_names

    if source in preset_names() or source.endswith((".yaml", ".yml")):
        # With auxiliary losses, transformers has a norm between decoder layers.
        return preset_checkpoint(source, [*overrides, *(["model.norm_between_layers=true"] if auxiliary else [])])
    if overrides:
        raise SettingsError(f"{overrides[0]!r}: settings can only change a preset, not {source}; leave it out")
    if not Path(source).exists() and "/" not in source:
        raise SettingsError(f"{source} is no preset, file or folder; presets: {', '.join(preset_names())}")
    return open_checkpoint(source, dilation)


def _heading(record: dict[str, Any]) -> tuple[str, str]:
    return (
        f"{record['source']}: {record['parameters'] / 1e6:.3g} M parameters, "
        f"{record['mean_multiply_adds'] / 1e9:.3g} G multiply-adds (mean over 100 images of COCO val)",
        f"{record['device']} ({record['instructions']}), {record['threads']} threads, torch {record['torch']}: matrix products run at "
        f"{record['matrix_multiply_adds_per_second'] / 1e9:.0f} G multiply-adds per second",
    )


def _table(measured: dict[str, Any]) -> list[str]:
    size = f"{measured['batch']} x {measured['size'][0]}x{measured['size'][1]}"
    work = f", {measured['multiply_adds'] / 1e9:.3g} G multiply-adds" if "multiply_adds" in measured else ""
    header = ["", "median ms", "quartiles", "images/s", "peak MiB"]
    shares = "share_of_matrix_rate" in measured["rows"][0]
    ratios = any("ratio" in row for row in measured["rows"])
    rows = [[*header, *(["of matrix rate"] if shares else []), *(["against transformers"] if ratios else [])]]
    for row in measured["rows"]:
        seconds, memory = row["seconds"], row["peak_memory"]
        cells = [
            row["name"],
            f"{seconds['median'] * 1e3:.1f}",
            f"{seconds['low'] * 1e3:.1f} - {seconds['high'] * 1e3:.1f}",
            f"{row['images_per_second']:.2f}",
            "-" if memory is None else f"{memory / 2**20:.0f}",
        ]
        if shares:
            cells.append(f"{row['share_of_matrix_rate']:.2f}")
        if ratios:
            ratio = row.get("ratio")
            cells.append("" if ratio is None else f"{ratio['median']:.2f} ({ratio['low']:.2f} - {ratio['high']:.2f})")
        rows.append(cells)
    total = sum(part["median"] for part in measured["parts"].values())
    parts = [("part of " + measured["parts_of"], "median ms", "share")]
    for name, part in measured["parts"].items():
        parts.append((name, f"{part['median'] * 1e3:.1f}", f"{part['median'] / total:.1%}"))
    lines = ["", f"{measured['what']}, {size}{work}", *aligned(rows, left=(0,))]
    for name, (logits, boxes) in measured["differences"].items():
        lines.append(f"{name}: logits differ by at most {logits:.1e}, boxes by {boxes:.1e}")
    return [*lines, "", *aligned(parts, left=(0,))]
