"""Compare ways to compute the same network: predictions and training steps, ours and those of transformers."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from conditional_detr.benchmark import ours
from conditional_detr.benchmark.counting import multiply_adds
from conditional_detr.benchmark.inputs import Inputs, difference
from conditional_detr.benchmark.measuring import Contender, in_turns, ratio, spread
from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.checkpoints.formats import load
from conditional_detr.exports import MASK, MODELS, PIXELS, ExportRecord
from conditional_detr.inference.devices import find_device

RUNTIMES = ("onnxruntime", "openvino")
INT8 = "-int8"  # behind the name of a runtime
_PLAIN = "plain"


class Comparison:
    """Ways to compute the network of a checkpoint. The first is without options, "plain".

    folder: existing one for temporary files. against: also measure transformers, to which ratios refer. repeats: number of
    measurements of each way, which are made in turns.
    """

    def __init__(self, checkpoint: Checkpoint, folder: Path, *, against: bool, repeats: int) -> None:
        self.checkpoint, self.folder, self.repeats = checkpoint, folder, repeats
        self.theirs = None
        if against:
            from conditional_detr.benchmark.theirs import VERSION

            self.theirs = f"transformers {VERSION}"
        load("huggingface").write(checkpoint, folder)

    def export(self, runtimes: Sequence[str]) -> dict[str, Path]:
        """Export the network for runtimes, and return the file of each. runtimes: of ``RUNTIMES``, with or without ``INT8``."""
        if not runtimes:
            return {}
        from conditional_detr.export.files import write_onnx
        from conditional_detr.export.int8 import quantize

        file = self.folder / MODELS[".onnx"]
        write_onnx(self.checkpoint, ExportRecord(self.checkpoint.record), file)
        small = file.with_stem("int8")
        if any(name.endswith(INT8) for name in runtimes):
            pixels = Inputs(1, 480, 640).images().pixels
            quantize(file, [{PIXELS: pixels.numpy(), MASK: pixels.new_zeros(1, 480, 640).bool().numpy()}], small)
        return {name: small if name.endswith(INT8) else file for name in runtimes}

    def prediction(
        self, inputs: Inputs, *, compile: bool, exported: Mapping[str, Path], matrix_rate: float
    ) -> dict[str, Any]:
        """Measure the forward pass. exported: what ``export`` returned. matrix_rate: of the device, in multiply-adds per second."""
        makers: dict[str, tuple[Any, ...]] = {
            _PLAIN: (ours.Prediction, self.folder, inputs, False, False),
            "--optimize": (ours.Prediction, self.folder, inputs, True, False),
        }
        if compile:
            makers["--compile"] = (ours.Prediction, self.folder, inputs, True, True)
        for name, file in exported.items():
            makers[name] = (ours.ExportedPrediction, file, inputs, name.removesuffix(INT8))
        if self.theirs:
            from conditional_detr.benchmark import theirs

            makers[self.theirs] = (theirs.Prediction, self.folder, inputs)
            if torch.cuda.is_available():  # --optimize is in half precision there too
                makers[f"{self.theirs}, bfloat16"] = (theirs.Prediction, self.folder, inputs, True)
        network = self.checkpoint
        work = inputs.batch * multiply_adds(network.architecture, len(network.categories), inputs[1:])
        measured = self._measured("prediction", inputs, makers)
        for row in measured["rows"]:
            row["share_of_matrix_rate"] = work / row["seconds"]["median"] / matrix_rate
        parts = _parts(ours.prediction_parts(self.folder, inputs, self.repeats))
        return {**measured, "multiply_adds": work, "parts": parts, "parts_of": _PLAIN}

    def training(self, inputs: Inputs) -> dict[str, Any]:
        """Measure an optimizer step, with the stages frozen that are published as frozen."""
        backbone = self.checkpoint.model.backbone
        stages = 1 if backbone.norm_frozen else -1
        backbone.freeze(stages)
        trained = sum(p.numel() for p in self.checkpoint.model.parameters() if p.requires_grad)
        makers: dict[str, tuple[Any, ...]] = {_PLAIN: (ours.Training, self.folder, inputs, stages, False)}
        if self.theirs:
            from conditional_detr.benchmark import theirs

            makers[self.theirs] = (theirs.Training, self.folder, inputs, trained)
        makers["gradient checkpointing"] = (ours.Training, self.folder, inputs, stages, True)
        measured = self._measured("training step", inputs, makers)
        parts = _parts(ours.Training(self.folder, inputs, stages, checkpointing=False).parts(self.repeats))
        return {**measured, "trained_parameters": trained, "parts": parts, "parts_of": _PLAIN}

    def _measured(self, what: str, inputs: Inputs, makers: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
        """Measure times in turns, peak memory, and differences of the outputs from those of transformers, or else of "plain".

        Ratios of times are reported only against transformers.
        """
        base = self.theirs or _PLAIN
        with ExitStack() as stack:
            sides = {name: stack.enter_context(Contender(find_device(), *maker)) for name, maker in makers.items()}
            outputs = {name: side.outputs() for name, side in sides.items()}  # before training changes the weights
            seconds = in_turns({name: side.seconds for name, side in sides.items()}, self.repeats, warmup=2)
            memory = {name: side.peak_memory() for name, side in sides.items()}
        rows: list[dict[str, Any]] = []
        for name in makers:
            row: dict[str, Any] = {
                "name": name,
                "seconds": spread(seconds[name])._asdict(),
                "images_per_second": inputs.batch / spread(seconds[name]).median,
                "peak_memory": memory[name],
            }
            if name != base and base == self.theirs:
                row["ratio"] = ratio(seconds[name], seconds[base])._asdict()
            rows.append(row)
        return {
            "what": what,
            "batch": inputs.batch,
            "size": [inputs.height, inputs.width],
            "rows": rows,
            "differences": {name: difference(each, outputs[base]) for name, each in outputs.items() if name != base},
        }


def _parts(seconds: dict[str, list[float]]) -> dict[str, Any]:
    return {name: spread(values)._asdict() for name, values in seconds.items()}
