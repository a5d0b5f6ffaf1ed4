"""A row for each image, and the columns that it is written to."""

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from conditional_detr.batch.storage import NEEDS
from conditional_detr.errors import SettingsError
from conditional_detr.structures import Detections

if TYPE_CHECKING:
    import pyarrow


class Row(NamedTuple):
    """Result of one image. Sizes in pixels and detections, or the error of an image that can't be used."""

    path: str
    width: int | None = None
    height: int | None = None
    detections: Detections | None = None
    error: str | None = None


def import_pyarrow() -> ModuleType:
    """Return pyarrow. Raises ``SettingsError`` when it is not installed."""
    try:
        import pyarrow
    except ImportError as error:
        raise SettingsError(f"results are Parquet files, which are written with pyarrow: {NEEDS}") from error
    return pyarrow


def schema() -> "pyarrow.Schema":
    """Return the columns of the results."""
    import pyarrow as pa

    return pa.schema(
        [
            ("path", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("boxes", pa.list_(pa.list_(pa.float32(), 4))),
            ("labels", pa.list_(pa.int64())),
            ("names", pa.list_(pa.string())),
            ("scores", pa.list_(pa.float32())),
            ("error", pa.string()),
        ]
    )


def to_table(rows: Sequence[Row]) -> "pyarrow.Table":
    """Return rows as a table. Images with an error have empty lists and null sizes."""
    import pyarrow as pa

    found = [each.detections for each in rows]
    columns = {
        "path": [_text(each.path) for each in rows],
        "width": [each.width for each in rows],
        "height": [each.height for each in rows],
        "boxes": [[] if each is None else each.boxes.tolist() for each in found],
        "labels": [[] if each is None else each.labels.tolist() for each in found],
        "names": [[] if each is None else [_text(name) for name in each.names] for each in found],
        "scores": [[] if each is None else each.scores.tolist() for each in found],
        "error": [None if each.error is None else _text(each.error) for each in rows],
    }
    return pa.table(columns, schema=schema())


def _text(text: str) -> str:
    """Return text that Parquet can hold: bytes of file names that are not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
