"""Find the names of categories in the descriptions of Hugging Face data sets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from conditional_detr.config.core_yaml import YAMLError, read_yaml
from conditional_detr.data.layouts.numbers import whole_number
from conditional_detr.data.layouts.text_files import read_text
from conditional_detr.errors import DataError
from conditional_detr.strict_json import JSONError, read_json_text

OBJECT_KEYS = ("objects", "annotations")
CATEGORY_KEYS = ("category", "categories", "category_id", "label", "labels", "class", "classes", "class_id")


def declared_names(root: Path, features: object) -> tuple[str, ...]:
    """Return the names that a data set declares for the numbers of its categories; none if it does not.

    features: description inside a Parquet file, or None. Otherwise README.md (in its head) and dataset_infos.json are looked
    at. Raises ``DataError`` when names contradict, as they may in data sets with several configurations.
    """
    for source, tree in (
        ("the Parquet file", features),
        (root / "README.md", _head_of(root / "README.md")),
        (root / "dataset_infos.json", _json_of(root / "dataset_infos.json")),
    ):
        found = set(_names_in(tree))
        if len(found) > 1:
            raise DataError(
                f"{source} gives the categories several lists of names; set data.categories to the right one"
            )
        if found:
            return found.pop()
    return ()


def _head_of(file: Path) -> object:
    """Return the YAML between the first two lines of dashes. A README that can't be read is no fault."""
    try:
        lines = read_text(file).split("\n")
        end = next(i for i, line in enumerate(lines) if i and line.rstrip() == "---")
        return read_yaml("\n".join(lines[1:end])) if lines[0].rstrip() == "---" else None
    except (DataError, YAMLError, StopIteration):
        return None


def _json_of(file: Path) -> object:
    try:
        return read_json_text(read_text(file))
    except (DataError, JSONError):
        return None


def _names_in(tree: object) -> Iterator[tuple[str, ...]]:
    """Yield the names of classes in a tree, where it describes the category of objects.

    In JSON, the key of a value is its name; in README.md, "name" in it. Class names are in a dict with the key "names", which is
    called class_label in README.md and has the _type ClassLabel in JSON.
    """
    waiting: list[tuple[object, tuple[str, ...]]] = [(tree, ())]
    while waiting:
        node, path = waiting.pop()
        if isinstance(node, list):
            waiting += [(each, path) for each in cast("list[object]", node)]
        if not isinstance(node, dict):
            continue
        values = cast("dict[str, Any]", node)
        if isinstance(values.get("name"), str):
            path = (*path, values["name"])
        described = values.get("_type") == "ClassLabel" or path[-1:] == ("class_label",)
        objects = next((i for i, key in enumerate(path) if key in OBJECT_KEYS), len(path))
        if (
            described
            and any(key in CATEGORY_KEYS for key in path[objects + 1 :])
            and (names := _listed(values.get("names")))
        ):
            yield names
        waiting += [(each, (*path, str(key))) for key, each in values.items()]


def _listed(names: object) -> tuple[str, ...]:
    """Return names given as a list, or as a map of the numbers 0, 1, ..."""
    if isinstance(names, dict):
        by_number = {whole_number(key): name for key, name in cast("dict[object, object]", names).items()}
        names = [by_number.get(i) for i in range(len(by_number))]
    values = cast("list[object]", names) if isinstance(names, list) else []
    return tuple(str(name) for name in values) if all(isinstance(name, (str, int)) for name in values) else ()
