"""Runtime of OpenVINO, for exported folders and ``.onnx`` files."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from conditional_detr.errors import CheckpointError, SettingsError
from conditional_detr.exports import KEY, MASK, PIXELS, RAW, WEIGHTS, ExportRecord, read_export_record
from conditional_detr.files import checksum
from conditional_detr.inference.runtimes.exported import Exported, check_graph, run_export
from conditional_detr.inference.runtimes.onnxruntime import read_onnx_record
from conditional_detr.structures import Outputs

NEEDS = "pip install 'conditional-detr[openvino]'"
_first_use = threading.Lock()


class OpenVinoRuntime:
    """An exported graph in OpenVINO on the CPU, with as many threads as torch has, in float32."""

    def __init__(self, compile: Callable[[int], Any], export: ExportRecord, streams: int = 1) -> None:
        """compile: return the compiled graph for so many calls at the same time."""
        self._compile, self.compiled, self.export = compile, compile(streams), export
        self.name = "OpenVINO on cpu"
        self._own = threading.local()  # a request computes one batch at a time
        self._shared: dict[int, OpenVinoRuntime] = {}
        self._lock = threading.Lock()

    def shared(self, streams: int) -> "OpenVinoRuntime":
        """Return the graph compiled for so many calls at the same time, which it is once."""
        with self._lock:
            if streams not in self._shared:
                self._shared[streams] = OpenVinoRuntime(self._compile, self.export, streams)
            return self._shared[streams]

    def __call__(
        self,
        pixels: Float[Tensor, "batch 3 height width"],
        padding_mask: Bool[Tensor, "batch height width"] | None = None,
    ) -> Outputs:
        return run_export(self._run, self.export, pixels, padding_mask)

    def _run(self, pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if not hasattr(self._own, "request"):
            self._own.request = self.compiled.create_infer_request()
        self._own.request.infer({PIXELS: pixels.contiguous().numpy(), MASK: mask.contiguous().numpy()})
        logits, boxes = (torch.from_numpy(self._own.request.get_tensor(name).data.copy()) for name in RAW)
        return logits, boxes


def open_openvino(file: Path, device: torch.device | None = None) -> Exported:
    """Open an exported ``model.xml``, with ``model.bin`` beside it, or an ``.onnx`` file.

    device: the CPU, also by default. Raises ``CheckpointError`` for a file that can't be used, and ``SettingsError`` without
    the package or for another device.
    """
    try:
        import openvino
    except ImportError as error:
        raise SettingsError(f"{file} needs OpenVINO: {NEEDS}", argument="runtime") from error
    with (
        _first_use
    ):  # OpenVINO makes something at the first use of a tensor, where two threads would wait for each other
        _ = openvino.Tensor(np.zeros(1, np.float32)).data
    if device is not None and device.type != "cpu":
        raise SettingsError(f"exports run with OpenVINO on 'cpu' only, not on {str(device)!r}", argument="device")
    weights = file.with_suffix(".bin")
    if file.suffix == ".xml" and not (file.is_file() and weights.is_file()):
        lost = weights if file.exists() else file
        raise CheckpointError(f"{lost} does not exist; an OpenVINO model is a folder with model.xml and model.bin")
    export = read_onnx_record(file) if file.suffix == ".onnx" else None  # before another reader opens it
    try:
        core = openvino.Core()
        model = core.read_model(file)
        if export is None:
            has = model.has_rt_info([KEY])
            export = read_export_record(model.get_rt_info([KEY]).astype(str) if has else None, file)
        if model.has_rt_info([WEIGHTS]) and model.get_rt_info([WEIGHTS]).astype(str) != checksum(weights):
            raise CheckpointError(f"{weights} is not the one that was exported with {file.name}; copy both again")
        shapes = {
            name: [side.get_length() if side.is_static else None for side in each.get_partial_shape()]
            for each in (*model.inputs, *model.outputs)
            if each.get_partial_shape().rank.is_static
            for name in each.get_names()
        }
        check_graph(file, export, shapes)
        common = {
            "INFERENCE_PRECISION_HINT": "f32",  # some processors would round to bfloat16
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }

        def compiled(streams: int) -> Any:
            hint = {"PERFORMANCE_HINT": "LATENCY"} if streams == 1 else {"NUM_STREAMS": streams}
            return core.compile_model(model, "CPU", common | hint)

        runtime = OpenVinoRuntime(compiled, export)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1][:200]
        raise CheckpointError(f"{file} can't be opened by OpenVINO ({first}); export it again") from error
    return Exported(export.model, runtime, torch.device("cpu"), file)
