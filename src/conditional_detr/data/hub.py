"""Download data sets from the Hugging Face hub."""

from pathlib import Path

from conditional_detr.data.images import SUFFIXES
from conditional_detr.errors import DataError

_FILES = ["*.parquet", "*metadata.jsonl", "README.md", "dataset_infos.json"]


def download(name: str) -> Path:
    """Download a data set to the cache of huggingface_hub and return its folder. Without network, the cache is used.

    name: id on the hub (owner/name), also with a branch, tag or commit: owner/name@revision. Only Parquet, metadata and images
    are downloaded. Raises ``DataError`` when that fails.
    """
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    images = [f"*{ending}" for suffix in sorted(SUFFIXES) for ending in (suffix, suffix.upper())]
    try:
        folder = snapshot_download(
            repository, repo_type="dataset", revision=revision or None, allow_patterns=[*_FILES, *images]
        )
    except Exception as error:  # the types of connection errors differ between versions of huggingface_hub
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"data.hub {name!r} can't be downloaded from the Hugging Face hub ({reason}); check the name and the network"
        ) from error
    return Path(folder)
