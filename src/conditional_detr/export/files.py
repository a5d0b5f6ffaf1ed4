"""Write exported graphs as files that contain their record."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.errors import SettingsError
from conditional_detr.export.graph import onnx_program
from conditional_detr.exports import KEY, WEIGHTS, ExportRecord
from conditional_detr.files import checksum
from conditional_detr.inference.runtimes import onnxruntime as onnx_runtime
from conditional_detr.inference.runtimes import openvino as openvino_runtime

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_LEAST_OPSET = 18
MOST_BYTES = 2**31 - 2**20  # of a protobuf file


def write_onnx(checkpoint: Checkpoint, export: ExportRecord, file: Path, opset: int | None = None) -> None:
    """Write a network as an ONNX file, in float32.

    Raises ``SettingsError`` without the packages, for an operator version that does not do, and for a file above 2 GiB.
    """
    if not all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))):
        raise SettingsError(f"exports are made with onnx, onnxscript and ONNX Runtime: {onnx_runtime.NEEDS}")
    if opset is not None and opset < _LEAST_OPSET:
        raise SettingsError(
            f"torch writes version {_LEAST_OPSET} of ONNX's operators or a later one, not {opset}", argument="opset"
        )
    size = sum(value.numel() * value.element_size() for value in checkpoint.model.state_dict().values())
    if size > MOST_BYTES:
        raise SettingsError(f"the weights take {size / 2**30:.1f} GiB, and an ONNX file without others holds at most 2")
    program = onnx_program(checkpoint, export, opset)
    found = program.model.opset_imports.get("", 0)
    if opset is not None and found != opset:
        raise SettingsError(
            f"torch writes this network with version {found} of ONNX's operators, not {opset}", argument="opset"
        )
    program.save(file, external_data=False)
    _clean(file)
    set_onnx_record(file, export)


def _clean(file: Path) -> None:
    """Remove torch's notes on where in which source file each operator comes from."""
    import onnx

    model = onnx.load(file)
    for part in (
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
        model.graph,
        model,
    ):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(model, file)


def set_onnx_record(file: Path, export: ExportRecord) -> None:
    """Replace the record in an ONNX file."""
    import onnx

    model = onnx.load(file)
    kept = [each for each in model.metadata_props if each.key != KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=KEY, value=export.to_json())
    model.producer_name = "conditional-detr"
    onnx.save(model, file)


def halve_onnx(file: Path) -> None:
    """Store the weights of an ONNX file in half precision. They are converted back when the file is opened."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(file)
    casts: list[onnx.NodeProto] = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        name, half = tensor.name, numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(half).all():
            continue
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, file)


def write_openvino(onnx_file: Path, export: ExportRecord, file: Path, *, half: bool = False) -> None:
    """Write an ONNX file as an OpenVINO model: ``file`` (.xml), and the weights beside it (.bin).

    half: store the weights in half precision. Raises ``SettingsError`` without the package.
    """
    try:
        import openvino
    except ImportError as error:
        raise SettingsError(f"an OpenVINO model needs its package: {openvino_runtime.NEEDS}") from error
    model = openvino.Core().read_model(onnx_file)
    model.set_rt_info(export.to_json(), [KEY])
    openvino.save_model(model, file, compress_to_fp16=half)
    model.set_rt_info(checksum(file.with_suffix(".bin")), [WEIGHTS])
    openvino.save_model(model, file, compress_to_fp16=half)  # the same weights


def write_torch(program: "ExportedProgram", export: ExportRecord, file: Path) -> None:
    """Write a program for ``torch.export.load``, with the record among its extra files."""
    torch.export.save(program, file, extra_files={f"{KEY}.json": export.to_json()})
