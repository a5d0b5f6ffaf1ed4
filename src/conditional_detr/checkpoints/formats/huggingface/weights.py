"""Weights of a Hugging Face folder: one file, or several (shards) with an index."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from conditional_detr.checkpoints.contents import shown
from conditional_detr.checkpoints.safe_load import load_weights
from conditional_detr.errors import CheckpointError
from conditional_detr.files import read_json

SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"


def read_weights(folder: Path) -> tuple[Mapping[Any, Any], Path]:
    """Return the content of a folder's weights, and the file or index that it comes from. Raises ``CheckpointError``."""
    for name in (SAFETENSORS, PICKLED):
        file, index = folder / name, folder / f"{name}.index.json"
        if file.is_file():
            content = load_weights(file)
            if not isinstance(content, Mapping):
                raise CheckpointError(f"{file} must map names to tensors")
            return cast("Mapping[Any, Any]", content), file
        if index.is_file():
            return _from_shards(index), index
    others = sorted(
        path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".h5", ".msgpack")
    )
    found = f" (it holds {', '.join(others[:3])})" if others else ""
    raise CheckpointError(f"{folder} holds neither {SAFETENSORS} nor {PICKLED}{found}; give a complete folder")


def _from_shards(index: Path) -> dict[str, Any]:
    place: Any = read_json(index, CheckpointError, "copy the folder again").get("weight_map")
    if not isinstance(place, dict) or not all(isinstance(name, str) for name in cast("dict[str, Any]", place).values()):
        raise CheckpointError(f"{index} has no weight_map from names to files; copy the folder again")
    shard_of = cast("dict[str, str]", place)
    values: dict[str, Any] = {}
    for shard in sorted(set(shard_of.values())):
        if "/" in shard or "\\" in shard or shard in ("", ".", ".."):
            raise CheckpointError(
                f"{index} names {shown(shard)}, which is not a file beside it; take it from another source"
            )
        file = index.with_name(shard)
        if not file.exists():
            raise CheckpointError(f"{index} names {shown(shard)}, which is missing; copy the folder again")
        listed = {name for name, each in shard_of.items() if each == shard}
        content = load_weights(file)
        held = set(cast("Mapping[Any, Any]", content)) if isinstance(content, Mapping) else set[Any]()
        if held != listed:
            different = sorted(map(str, listed ^ held))
            raise CheckpointError(
                f"{file} and {index.name} disagree about {shown(different[0])} ({len(different)} names in all); copy the folder again"
            )
        values |= content
    return values
