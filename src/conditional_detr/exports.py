"""Exported models: the names of their files, and what a file says about itself. Imports no torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from conditional_detr.architecture import Architecture
from conditional_detr.errors import CheckpointError, newer_version
from conditional_detr.record import ModelRecord, read_record
from conditional_detr.strict_json import read_json_text

VERSION = 1  # of ``ExportRecord``
KEY = "conditional_detr"  # in the file's own metadata
WEIGHTS = "conditional_detr_weights"  # OpenVINO: checksum of the .bin that belongs to an .xml
MODELS = {".onnx": "model.onnx", ".xml": "model.xml", ".pt2": "model.pt2"}  # suffix -> name in an exported folder
KINDS = {".onnx": "ONNX", ".xml": "OpenVINO", ".pt2": "torch.export"}
PIXELS, MASK = "pixels", "padding_mask"  # inputs of the graph
MAX_BATCH = 4096  # images of a fixed batch
RAW = ("logits", "boxes")  # outputs of every graph
FOUND = ("scores", "category_ids", "corners")  # further outputs of an end-to-end graph


@dataclass(frozen=True)
class ExportRecord:
    """What an exported file says about itself.

    model: record of the model, with the input size of the file. batch, size: fixed number of images, and fixed (height, width)
    in pixels of the padded image; None where any will do. end_to_end: the graph has the outputs ``FOUND`` too. proof: what was
    measured when it was exported, in plain containers.
    """

    model: ModelRecord
    batch: int | None = None
    size: tuple[int, int] | None = None
    end_to_end: bool = True
    proof: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the text that is written into the file."""
        return json.dumps(
            {
                "version": VERSION,
                "record": self.model.to_dict(),
                "batch": self.batch,
                "size": None if self.size is None else list(self.size),
                "end_to_end": self.end_to_end,
                "proof": dict(self.proof),
            }
        )


def read_export_record(text: str | None, source: object) -> ExportRecord:
    """Read what ``ExportRecord.to_json`` wrote. text: None if the file has none. source: the file, for messages.

    Raises ``CheckpointError`` for a file of another program, of a newer version, and for a damaged record.
    """
    if text is None:
        raise CheckpointError(
            f"{source} was not written by cdetr export: it has no record of categories and input size; export a checkpoint "
            f"with cdetr export"
        )
    damaged = f"{source}: its record is damaged; export the model again"
    try:
        given = read_json_text(text)
        version = given["version"]
        if isinstance(version, int) and VERSION < version < 2**31:
            raise CheckpointError(newer_version(source, "export", version, VERSION))
        stored = read_record(given["record"], source)
        if stored.categories is None or stored.input_size is None:
            raise CheckpointError(damaged)
        model = ModelRecord(
            Architecture(**cast("dict[str, Any]", stored.architecture)),
            stored.categories,
            stored.input_size,
            stored.thresholds,
        )
        batch, size = given["batch"], given["size"]
        if version != VERSION or (batch is not None and not _is_count(batch, MAX_BATCH)):
            raise CheckpointError(damaged)
        if size is not None and not (len(size) == 2 and all(_is_count(side, 2**20) for side in size)):
            raise CheckpointError(damaged)
        fixed = None if size is None else (size[0], size[1])
        return ExportRecord(model, batch, fixed, bool(given["end_to_end"]), dict(given["proof"]))
    except CheckpointError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(damaged) from error


def _is_count(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def export_file(source: str | Path) -> Path | None:
    """Return the exported file at a path: the file itself, or the one in a folder. None for anything else."""
    path = Path(source)
    if path.suffix in MODELS and not path.is_dir():
        return path if path.exists() or path.suffix != ".pt2" else None
    if path.is_dir() and not (path / "config.json").exists() and not (path / "config.yaml").exists():
        return next((path / name for name in MODELS.values() if (path / name).is_file()), None)
    return None


def refuse_export(source: str | Path) -> None:
    """Raise ``CheckpointError`` for an exported model, where only one of PyTorch will do."""
    file = export_file(source)
    if file is not None:
        raise CheckpointError(
            f"{file} is an export ({KINDS[file.suffix]}), from which nothing can be trained, converted, exported or explained; give "
            f"the checkpoint that it was exported from"
        )
