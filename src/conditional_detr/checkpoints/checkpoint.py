"""Checkpoints independent of their format, and loading of parameters into a network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from conditional_detr.architecture import Architecture
from conditional_detr.checkpoints.names import Decoder, Layout
from conditional_detr.errors import CheckpointError
from conditional_detr.input_size import BoxFrame, InputSize
from conditional_detr.model.network import DETR
from conditional_detr.record import Categories, ModelRecord, Thresholds

OWN_KEY = "conditional_detr"  # key of the model record in every format; it holds what the format has no field for
HEAD = ("class_head.weight", "class_head.bias")  # one row per logit
COUNTER = "num_batches_tracked"  # buffer of trained batch norm; in some formats only, and unused here
_TRAINING_ONLY = (COUNTER, "decoder.further_groups.weight")


@dataclass(frozen=True)
class Origin:
    """Origin of a checkpoint.

    format, layout: their names. names: our parameter names -> names in the file. left_out: other entries of the file -> why
    they were not loaded.
    """

    format: str
    layout: str
    names: Mapping[str, list[str]]
    left_out: Mapping[str, str]


class Written(NamedTuple):
    """Result of writing. names: our parameter names -> names in the file. remarks: other changes, in sentences."""

    names: Mapping[str, list[str]]
    remarks: list[str]


class State(NamedTuple):
    """Parameters and buffers of a file under our names, in float32, without shared memory. The class head may be missing.

    format: format that ``layout`` belongs to. prefix: what all names in the file begin with. names: ours -> those in the file.
    rest: what the file holds beside the weights. left_out: entries of the file that were not loaded -> why.
    """

    values: dict[str, Tensor]
    format: str
    layout: Layout
    decoder: Decoder
    prefix: str
    names: dict[str, list[str]]
    rest: Mapping[str, Any]
    left_out: dict[str, str]

    @property
    def has_head(self) -> bool:
        return HEAD[0] in self.values

    def classes(self, softmax: bool | None = None) -> int:
        """Return the number of classes: the rows of the class head without "no object"; 0 without a class head.

        softmax: whether the last row is "no object"; by default as published for the decoder.
        """
        if not self.has_head:
            return 0
        return len(self.values[HEAD[0]]) - (self.decoder == "detr" if softmax is None else softmax)

    def name(self, ours: str) -> str:
        """Return the name of our parameter in the file, or the one it would have there; the first of several."""
        return self.names[ours][0] if ours in self.names else self.prefix + self.layout.names(self.decoder, ours)[0]


class Given(NamedTuple):
    """Input of a format's reader: a folder, or a file and its parameters.

    boxes: what predicted boxes are relative to, if the caller says so.
    """

    path: Path
    state: State | None = None
    boxes: BoxFrame | None = None


class Parsed(NamedTuple):
    """Contents of a file or folder, before a network is built.

    declared: fields of ``Architecture`` that it states. thresholds: those in its record; None without any.
    """

    state: State
    declared: Mapping[str, Any]
    categories: Categories
    input_size: InputSize
    left_out: Mapping[str, str]
    thresholds: Thresholds | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A network and its record: everything needed to use it."""

    model: DETR
    record: ModelRecord
    origin: Origin | None = None

    @property
    def architecture(self) -> Architecture:
        return self.record.architecture

    @property
    def categories(self) -> Categories:
        return self.record.categories

    @property
    def input_size(self) -> InputSize:
        return self.record.input_size


def network_state(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, except those for training only: counters of batch norm, further groups of queries."""
    return {name: value for name, value in module.state_dict().items() if not name.endswith(_TRAINING_ONLY)}


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], source: object, name_of: Callable[[str], str] = str
) -> None:
    """Load parameters and buffers. Names and shapes must match exactly; counters of batch norm are ignored.

    A module on the meta device takes over the given tensors. name_of: our name of a parameter -> its name in messages. Raises
    ``CheckpointError`` naming the first parameter that is missing, unexpected or of another shape.
    """
    expected = network_state(module)
    given = {name: value for name, value in state.items() if not name.endswith(COUNTER)}
    wrong = [
        f"{name_of(name)} has shape {list(value.shape)} instead of {list(expected[name].shape)}"
        for name, value in given.items()
        if name in expected and value.shape != expected[name].shape
    ]
    wrong += [f"{name_of(name)} is missing" for name in expected if name not in given]
    wrong += [f"{name_of(name)} is not part of the model" for name in given if name not in expected]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"{source} does not fit the model: {wrong[0]}{more}; give weights of exactly this architecture"
        )
    module.load_state_dict(given, strict=False, assign=any(value.is_meta for value in expected.values()))
