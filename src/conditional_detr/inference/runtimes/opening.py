"""Open exported models with the runtime that was asked for."""

from importlib.util import find_spec
from pathlib import Path

import torch

from conditional_detr.errors import SettingsError
from conditional_detr.exports import KINDS
from conditional_detr.inference.runtimes import RuntimeName
from conditional_detr.inference.runtimes.exported import Exported
from conditional_detr.inference.runtimes.onnxruntime import open_onnx
from conditional_detr.inference.runtimes.openvino import open_openvino

_OPENED_BY: dict[str, list[RuntimeName]] = {
    ".onnx": ["openvino", "onnxruntime"],
    ".xml": ["openvino"],
}  # the faster first (docs/deploy.md)


def open_export(file: Path, runtime: RuntimeName = "auto", device: torch.device | None = None) -> Exported:
    """Open an exported file. runtime: with "auto", the faster of those that are installed for the device.

    Raises ``SettingsError`` for a runtime that can't open this kind of file, and as the runtimes do.
    """
    kinds = _OPENED_BY.get(file.suffix)
    if kinds is None:
        raise SettingsError(
            f"{file} is for torch.export.load in a program of yours; to predict here, give the checkpoint it was made from"
        )
    if runtime == "auto":
        gpu = device is not None and device.type != "cpu"
        usable: list[RuntimeName] = [each for each in kinds if find_spec(each) and not (gpu and each == "openvino")]
        runtime = usable[0] if usable else kinds[-1]  # if none is installed, the last names its package
    if runtime not in kinds:
        raise SettingsError(
            f"{file} ({KINDS[file.suffix]}) does not run in {runtime}; give {' or '.join(kinds)}",
            argument="runtime",
        )
    return (open_openvino if runtime == "openvino" else open_onnx)(file, device)
