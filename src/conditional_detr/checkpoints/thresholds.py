"""Write measured thresholds into the record of a checkpoint folder."""

import json
from dataclasses import dataclass
from pathlib import Path

from conditional_detr.checkpoints.checkpoint import OWN_KEY
from conditional_detr.checkpoints.folders import checkpoint_folder
from conditional_detr.checkpoints.formats.huggingface import MARKER
from conditional_detr.errors import CheckpointError
from conditional_detr.files import read_json, write_text
from conditional_detr.record import VERSION, Thresholds, read_record


@dataclass(frozen=True)
class RecordFile:
    """The file that holds the record of a checkpoint folder. stamp: of the files of the folder when the model was opened."""

    path: Path
    stamp: tuple[tuple[str, int, int], ...]

    @classmethod
    def of(cls, source: str | Path) -> "RecordFile | None":
        """Return the file of a run or checkpoint folder, to be called before the model is opened; None for other sources."""
        if not Path(source).is_dir():
            return None
        path = checkpoint_folder(Path(source))[0] / MARKER
        return cls(path, _stamp(path.parent))

    def keep(self, thresholds: Thresholds) -> None:
        """Write thresholds into the record, and change nothing else.

        Raises ``CheckpointError`` when the folder has no record of this version, and when it was changed since it was opened.
        """
        if self.path.is_symlink():
            raise CheckpointError(f"{self.path} is a link and is not changed; copy the folder to keep thresholds in it")
        config = read_json(self.path, CheckpointError, "give a complete checkpoint folder")
        own = config.get(OWN_KEY)
        stored = read_record(own, self.path)
        if own is None or own.get("version") != VERSION or stored.categories is None:
            raise CheckpointError(
                f"{self.path} has no record that thresholds can be kept in; convert the model to the format huggingface first"
            )
        if _stamp(self.path.parent) != self.stamp:
            raise CheckpointError(f"{self.path.parent} was changed while it was evaluated; evaluate it again")
        config[OWN_KEY] = {**own, "thresholds": thresholds.to_dict()}
        try:
            write_text(self.path, json.dumps(config, indent=2))
        except OSError as error:
            raise CheckpointError(
                f"{self.path} can't be written ({error.strerror}); make its folder writable"
            ) from error


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files)
