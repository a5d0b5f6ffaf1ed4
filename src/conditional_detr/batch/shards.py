"""The folder of a batch: its plan, and a Parquet file for each shard that is done, written whole or not at all.

Any number of processes may write into one folder. Temporary names are their own, and two that compute the same shard write equal
rows.
"""

import io
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, cast

from conditional_detr.batch.plan import Plan
from conditional_detr.batch.rows import Row, import_pyarrow, to_table
from conditional_detr.batch.storage import PARTIAL, absolute, located, read, reason, told, write_whole
from conditional_detr.errors import SettingsError

PLAN, SHARDS = "plan.json", "shards"
_NAME = re.compile(r"(\d{6,})\.parquet")
_KEY = b"conditional_detr"
_READERS = 16  # threads that read the ends of shards, which waits for a store more than it computes


class Counts(NamedTuple):
    """Numbers of images, of those with an error, and of objects in a shard or several."""

    images: int = 0
    errors: int = 0
    objects: int = 0

    def __add__(self, other: object) -> "Counts":
        return Counts(*map(sum, zip(self, cast(Counts, other), strict=True)))


class BatchFolder:
    """Folder that the rows of a plan are written to. Raises ``SettingsError`` when pyarrow or a driver is missing.

    address: a path or a URL of fsspec. ``begin`` has to be called once, in one of the processes that write.
    """

    def __init__(self, address: str, plan: Plan) -> None:
        self.address, self.plan = absolute(address).rstrip("/"), plan
        import_pyarrow()
        located(self.address)  # raises

    def begin(self) -> None:
        """Write the plan, or compare it with the one that is there.

        Raises ``SettingsError`` when it is another, and when the folder holds files of others.
        """
        place = f"{self.address}/{PLAN}"
        with told(self.address):
            names = self._names(self.address)
            if PLAN not in names:
                foreign = sorted(name for name in names if not name.endswith(PARTIAL))
                if foreign and PLAN not in self._names(self.address):  # another process may just have begun
                    raise SettingsError(
                        f"{self.address} holds other files, such as {foreign[0]}; name a new or empty folder",
                        argument="folder",
                    )
                if not foreign:
                    write_whole(place, self.plan.to_json().encode(), replace=False)
            self.plan.check(read(place).decode(errors="replace"), place)

    def finished(self) -> set[int]:
        """Return the finished shards. Raises ``SettingsError`` when there are files of others among them."""
        folder = f"{self.address}/{SHARDS}"
        with told(folder):
            names = [name for name in self._names(folder) if not name.endswith(PARTIAL)]
        matches = {name: _NAME.fullmatch(name) for name in names}
        for name, match in matches.items():
            if match is None or int(match[1]) >= self.plan.shards:
                raise SettingsError(
                    f"{folder}/{name} is no shard of this batch; remove it, or name another folder", argument="folder"
                )
        return {int(match[1]) for match in matches.values() if match}

    def done(self, shards: Iterable[int]) -> dict[int, Counts]:
        """Return what those of ``shards`` hold that are finished. Raises ``SettingsError`` for shards of another plan."""
        found = sorted(self.finished().intersection(shards))
        with ThreadPoolExecutor(_READERS) as pool:
            return dict(zip(found, pool.map(self.read_counts, found), strict=True))

    def is_done(self, shard: int) -> bool:
        system, path = located(self.file_of(shard))
        system.invalidate_cache()
        return system.isfile(path)

    def file_of(self, shard: int) -> str:
        return f"{self.address}/{SHARDS}/{shard:06d}.parquet"

    def read_counts(self, shard: int) -> Counts:
        """Return what the end of a shard says. Raises ``SettingsError`` when it is damaged or of another plan."""
        from pyarrow.parquet import read_schema

        file = self.file_of(shard)
        system, path = located(file)
        try:
            with told(file), system.open(path, "rb") as opened:
                metadata = cast("dict[bytes, bytes]", read_schema(opened).metadata or {})
            values: dict[str, Any] = json.loads(metadata.get(_KEY, b"{}"))
            if values.get("plan") == self.plan.checksum and values.get("shard") == shard:
                return Counts(values["images"], values["errors"], values["objects"])
        except (import_pyarrow().ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk or the store
            raise SettingsError(f"{file} is damaged ({reason(error)}); remove it, and it is computed again") from error
        raise SettingsError(
            f"{file} was not written by this batch; remove it, or name another folder", argument="folder"
        )

    def write(self, shard: int, rows: Sequence[Row]) -> Counts:
        """Write a shard, whole or not at all, and return what it holds."""
        from pyarrow.parquet import write_table

        found = [each.detections for each in rows if each.detections is not None]
        counts = Counts(len(rows), sum(each.error is not None for each in rows), sum(map(len, found)))
        values = {"plan": self.plan.checksum, "shard": shard, **counts._asdict()}
        content = io.BytesIO()
        write_table(
            to_table(rows).replace_schema_metadata({_KEY: json.dumps(values).encode()}), content, compression="zstd"
        )
        write_whole(self.file_of(shard), content.getvalue())
        return counts

    def clean(self) -> None:
        """Remove what killed processes left half-written. Call it when all shards are finished."""
        folder = f"{self.address}/{SHARDS}"
        for name in self._names(folder):
            if name.endswith(PARTIAL):
                system, path = located(f"{folder}/{name}")
                system.rm_file(path)

    def _names(self, folder: str) -> list[str]:
        system, path = located(folder)
        system.invalidate_cache()
        if system.isfile(path):
            raise SettingsError(f"{folder} is a file; name a folder", argument="folder")
        try:
            return [each.rstrip("/").rpartition("/")[2] for each in system.ls(path, detail=False)]
        except FileNotFoundError:
            return []
