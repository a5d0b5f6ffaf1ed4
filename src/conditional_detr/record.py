"""The model record: architecture, categories and input size. Every checkpoint and export contains it. Imports no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, cast

from conditional_detr.architecture import Architecture
from conditional_detr.errors import CheckpointError, newer_version
from conditional_detr.input_size import InputSize

VERSION = 1  # of the record that ``to_dict`` writes; 0 means conditional-detr 0.1.0, which wrote no version


# --- categories ---


@dataclass(frozen=True)
class Categories:
    """Mapping of logit index, category id and name: logit ``i`` means category ``ids[i]``, named ``names[i]``."""

    ids: tuple[int, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.names):
            raise ValueError(f"{len(self.ids)} category ids but {len(self.names)} names; give one name per id")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError(f"category ids must differ from each other, got {list(self.ids)}")

    def __len__(self) -> int:
        return len(self.ids)

    def index_of(self, category_id: int) -> int:
        """Return the logit index of a category id. Raises ``ValueError`` for an unknown id."""
        if category_id not in self.ids:
            raise ValueError(f"category id {category_id} is not among {list(self.ids)}")
        return self.ids.index(category_id)

    def name_of(self, category_id: int) -> str:
        """Return the name of a category id. Raises ``ValueError`` for an unknown id."""
        return self.names[self.index_of(category_id)]


# --- thresholds ---


@dataclass(frozen=True)
class Thresholds:
    """Scores from which detections are kept with the best F1, as measured on validation data. All are in 0..1.

    overall: one threshold for all categories together. per_class: one for each logit index; None where it could not be measured.
    """

    overall: float
    per_class: tuple[float | None, ...]

    def __post_init__(self) -> None:
        for value in (self.overall, *self.per_class):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"thresholds must be in 0..1, got {value}")

    def to_dict(self) -> dict[str, Any]:
        """Return the thresholds as plain containers."""
        return {"all": self.overall, "per_class": list(self.per_class)}

    def of_rows(self) -> tuple[float, ...]:
        """Return the threshold of each logit index; ``overall`` where a category has none of its own."""
        return tuple(self.overall if value is None else value for value in self.per_class)


# --- the record ---


@dataclass(frozen=True)
class ModelRecord:
    """Description of a model without its weights: architecture, categories, input size and, once measured, thresholds."""

    architecture: Architecture
    categories: Categories
    input_size: InputSize = field(default_factory=InputSize)
    thresholds: Thresholds | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain containers, with its version. Thresholds are left out where there are none."""
        return {
            "version": VERSION,
            "architecture": self.architecture.model_dump(mode="json"),
            "categories": {"ids": list(self.categories.ids), "names": list(self.categories.names)},
            "input_size": {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in asdict(self.input_size).items()
            },
            **({} if self.thresholds is None else {"thresholds": self.thresholds.to_dict()}),
        }


class StoredRecord(NamedTuple):
    """Model record as stored in a file; missing parts are None or empty."""

    architecture: Mapping[str, Any]
    categories: Categories | None
    input_size: InputSize | None
    thresholds: Thresholds | None = None

    def thresholds_of(self, categories: Categories) -> Thresholds | None:
        """Return the thresholds if the model has the categories that they were measured for, which another program may change."""
        return self.thresholds if categories == self.categories else None


def read_record(values: Any, source: object) -> StoredRecord:
    """Read a record that ``ModelRecord.to_dict`` wrote, in this version or an older one. None gives an empty record.

    source: the file, for messages. Raises ``CheckpointError`` for a newer version and for malformed contents.
    """
    if values is None:
        return StoredRecord({}, None, None)
    version = cast("Mapping[str, Any]", values).get("version", 0) if isinstance(values, Mapping) else None
    if isinstance(version, int) and VERSION < version < 2**31:
        raise CheckpointError(newer_version(source, "record", version, VERSION))
    try:
        given = cast("Mapping[str, Any]", values)
        if _whole(version) not in range(VERSION + 1):
            raise ValueError(f"version {version}")
        if version == 0:
            given = _from_version_0(given)
        size, thresholds = given.get("input_size"), given.get("thresholds")
        categories = None if given.get("categories") is None else _categories(given["categories"])
        return StoredRecord(
            dict(given.get("architecture") or {}),
            categories,
            None if size is None else _input_size(size),
            None if thresholds is None else _thresholds(thresholds, categories),
        )
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source}: its model record is damaged ({repr(error)[:200]}); convert the original again"
        ) from error


def _from_version_0(given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a record of version 0.1.0 to the current form."""
    architecture = {key: given[key] for key in ("position_temperature", "classification", "dilation") if key in given}
    names = given.get("category_names")
    categories = None if names is None else {"ids": given["category_ids"], "names": names}
    return {"architecture": architecture, "categories": categories, "input_size": given.get("input_size")}


def _categories(given: Mapping[str, Any]) -> Categories:
    return Categories(tuple(map(_id, given["ids"])), tuple(map(str, given["names"])))


def _thresholds(given: Mapping[str, Any], categories: Categories | None) -> Thresholds:
    per_class = tuple(None if value is None else _score(value) for value in given["per_class"])
    if categories is None or len(per_class) != len(categories):
        raise ValueError(f"{len(per_class)} thresholds for {0 if categories is None else len(categories)} categories")
    return Thresholds(_score(given["all"]), per_class)


def _input_size(given: Mapping[str, Any]) -> InputSize:
    first, second = map(_side, given["sides"])
    padded = given["padded"]
    return InputSize(
        (first, second),
        given["rule"],
        None if padded is None else (_side(padded[0]), _side(padded[1])),
        given["boxes"],
    )


def _id(value: Any) -> int:
    if not -(2**63) <= _whole(value) < 2**63:
        raise ValueError(f"category id {value} has more than 64 bits")
    return value


def _side(value: Any) -> int:
    if not 1 <= _whole(value) < 2**31:
        raise ValueError(f"a side of {value} pixels")
    return value


def _score(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is not a number")
    if not 0 <= value <= 1:
        raise ValueError(f"a score of {value}")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not a whole number")
    return value
