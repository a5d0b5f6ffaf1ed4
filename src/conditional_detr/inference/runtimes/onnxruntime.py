"""Runtime of ONNX Runtime, for exported ``.onnx`` files."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from conditional_detr.errors import CheckpointError, SettingsError
from conditional_detr.exports import KEY, MASK, PIXELS, RAW, ExportRecord, read_export_record
from conditional_detr.inference.runtimes.exported import Exported, check_graph, run_export
from conditional_detr.structures import Outputs

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, TensorProto

NEEDS = "pip install 'conditional-detr[onnx]'"


class OnnxRuntime:
    """An exported graph in ONNX Runtime, with as many threads as torch has."""

    def __init__(self, session: Any, export: ExportRecord, device: torch.device) -> None:
        self.session, self.export = session, export
        self.device = device
        self.name = f"ONNX Runtime on {device}"

    def shared(self, streams: int) -> "OnnxRuntime | None":
        """Return the same on a CPU: its threads help whoever calls, and do not wait for work by spinning."""
        return self if self.device.type == "cpu" else None

    def __call__(
        self,
        pixels: Float[Tensor, "batch 3 height width"],
        padding_mask: Bool[Tensor, "batch height width"] | None = None,
    ) -> Outputs:
        return run_export(self._run, self.export, pixels, padding_mask)

    def _run(self, pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        found = self.session.run(list(RAW), {PIXELS: pixels.contiguous().numpy(), MASK: mask.contiguous().numpy()})
        return torch.from_numpy(found[0]).float(), torch.from_numpy(found[1]).float()


def open_onnx(file: Path, device: torch.device | None = None) -> Exported:
    """Open an exported file. device: by default a GPU if ONNX Runtime can use one, else the CPU.

    Raises ``CheckpointError`` for a file that can't be used, and ``SettingsError`` without the package or the device.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise SettingsError(f"{file} needs ONNX Runtime: {NEEDS}", argument="runtime") from error
    export = read_onnx_record(file)
    gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device is None:
        device = torch.device("cuda" if gpu else "cpu")
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not gpu):
        raise SettingsError(
            f"ONNX Runtime has no support for {str(device)!r} here; give device 'cpu', or for CUDA pip install onnxruntime-gpu",
            argument="device",
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # it takes the processor from those who decode
    options.log_severity_level = 3  # errors, which are raised too
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        providers = [("CUDAExecutionProvider", {"device_id": device.index or 0}), *providers]
    try:
        session = onnxruntime.InferenceSession(file, options, providers=providers)
    except Exception as error:  # onnxruntime has many kinds without a common base
        raise CheckpointError(f"{file} can't be opened by ONNX Runtime ({_first(error)}); export it again") from error
    both = (*session.get_inputs(), *session.get_outputs())
    check_graph(
        file, export, {each.name: [side if isinstance(side, int) else None for side in each.shape] for each in both}
    )
    return Exported(export.model, OnnxRuntime(session, export, device), device, file)


def read_onnx_record(file: Path) -> ExportRecord:
    """Read the record of an exported file. Raises ``CheckpointError`` for any other file.

    A file that keeps weights elsewhere is refused, because ours do not, and because a runtime would read any file it names.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise SettingsError(f"{file} needs onnx: {NEEDS}", argument="runtime") from error
    if not file.is_file():
        raise CheckpointError(f"{file} {'is not a file' if file.exists() else 'does not exist'}; check the path")
    try:
        model = onnx.load(file, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise CheckpointError(f"{file} is not an ONNX file, or is cut off; export or copy it again") from error
    attributes = (each for function in model.functions for node in function.node for each in node.attribute)
    for tensor in (*_tensors(model.graph), *(tensor for each in attributes for tensor in _tensors_of(each))):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise CheckpointError(
                f"{file} keeps weights in other files, which may lie anywhere, so it is not opened; cdetr export writes one file"
            )
    texts = [each.value for each in model.metadata_props if each.key == KEY]
    return read_export_record(texts[0] if texts else None, file)


def _tensors(graph: "GraphProto") -> "Iterator[TensorProto]":
    """Yield the tensors of a graph and of the graphs in it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from _tensors_of(attribute)


def _tensors_of(attribute: "AttributeProto") -> "Iterator[TensorProto]":
    yield attribute.t
    yield from attribute.tensors
    for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
        yield from (sparse.values, sparse.indices)
    for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
        yield from _tensors(graph)


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
