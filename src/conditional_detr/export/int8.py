"""Quantize the convolutions of an ONNX file to INT8."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from conditional_detr.data.annotations import Annotations
from conditional_detr.data.batching import pad, prepare
from conditional_detr.data.loading import usable_images
from conditional_detr.exports import MASK, PIXELS, ExportRecord

CALIBRATION = 100  # images, unless there are fewer


def quantize(onnx_file: Path, batches: Iterable[Mapping[str, np.ndarray]], out: Path) -> None:
    """Write an ONNX file whose convolutions compute with 8-bit integers.

    batches: inputs of the file by name; ranges of activations are the largest values on them. Weights have a scale per output
    channel, and 7 bits, because sums of 8-bit products overflow on processors without VNNI. Everything else stays float32:
    quantizing the transformer loses most of the AP (docs/deploy.md).
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, Any]:
            return dict(next(self.batches, {}))

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # onnxruntime advises on its own defaults
    try:
        quantize_static(
            onnx_file,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        logger.setLevel(level)


def calibration_batches(
    data: Annotations,
    export: ExportRecord,
    images: int = CALIBRATION,
    on_error: Literal["stop", "skip"] = "stop",
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the inputs of a file for images of a data set, spread evenly. images: their number, unless there are fewer."""
    size, copies = export.model.input_size, export.batch or 1
    count = min(images, len(data))
    spread = [number * len(data) // count for number in range(count)]
    for image in usable_images(data, spread, on_error):
        batch = pad([prepare(image, size)], size)
        mask = batch.padding_mask
        if mask is None:
            mask = batch.pixels.new_zeros(1, *batch.size).bool()
        yield {
            PIXELS: batch.pixels.repeat(copies, 1, 1, 1).numpy(),
            MASK: mask.repeat(copies, 1, 1).numpy(),
        }
