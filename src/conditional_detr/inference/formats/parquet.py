"""Write a Parquet table of objects. Needs pyarrow, the extra "parquet"."""

from itertools import islice
from pathlib import Path

from conditional_detr.errors import SettingsError
from conditional_detr.inference.formats import DetectionSet
from conditional_detr.inference.formats.table import COLUMNS, rows

try:  # before anything is computed, because this module is imported when the format is asked for
    import pyarrow
    from pyarrow.parquet import ParquetWriter
except ImportError as error:
    raise SettingsError(
        "format parquet needs pyarrow: pip install 'conditional-detr[parquet]'", argument="format"
    ) from error

NAME, XML, PER_IMAGE = "detections.parquet", False, False
_ROWS = 10_000  # in memory at once


def write(path: Path, found: DetectionSet) -> None:
    schema = pyarrow.schema([(name, pyarrow.type_for_alias(type_)) for name, type_ in COLUMNS.items()])
    remaining = rows(found)
    with ParquetWriter(path, schema) as writer:
        while some := list(islice(remaining, _ROWS)):
            writer.write_batch(
                pyarrow.RecordBatch.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in some], schema)
            )
