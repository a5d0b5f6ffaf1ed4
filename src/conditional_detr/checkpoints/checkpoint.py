"""What a checkpoint is, whatever its format, and how its parameters get into a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from conditional_detr.checkpoints.names import Decoder, Layout
from conditional_detr.errors import CheckpointError
from conditional_detr.model.network import DETR
from conditional_detr.record import Architecture, BoxFrame, Categories, InputSize, ModelRecord

OWN_KEY = "conditional_detr"  # in every format: the model's record, for what the format has no field for
HEAD = ("class_head.weight", "class_head.bias")  # rows: a logit each
COUNTER = "num_batches_tracked"  # of trained batch norm; formats have it or not, and nothing here uses it
_TRAINING_ONLY = (COUNTER, "decoder.further_groups.weight")


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint came from.

    format, layout: by name. names: our parameter names -> names in the file. left_out: what else the file holds -> why it was
    not taken.
    """

    format: str
    layout: str
    names: Mapping[str, list[str]]
    left_out: Mapping[str, str]


class Written(NamedTuple):
    """What a writer did. names: our parameter names -> names in the file. remarks: what else happened, in sentences."""

    names: Mapping[str, list[str]]
    remarks: list[str]


class State(NamedTuple):
    """Parameters and statistics of a file under our names, in float32, each with memory of its own.

    format: the one that has ``layout``. names: ours -> those in the file. left_out: what else was in the file -> why it was
    not taken.
    """

    values: dict[str, Tensor]
    format: str
    layout: Layout
    decoder: Decoder
    names: dict[str, list[str]]
    left_out: dict[str, str]


class Given(NamedTuple):
    """What a format reads: a folder, or the parameters of a ``.pth`` file and what else it holds.

    boxes: what predicted boxes are relative to, where the caller knows.
    """

    path: Path
    state: State | None = None
    rest: Mapping[str, Any] = {}
    boxes: BoxFrame | None = None


class Parsed(NamedTuple):
    """What a file or folder says, before a network is made of it. declared: fields of ``Architecture`` that it tells."""

    format: str
    state: State
    declared: Mapping[str, Any]
    categories: Categories
    input_size: InputSize
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class Checkpoint:
    """A network and its record: everything that is needed to use it."""

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
    """Return parameters and statistics without what only training has: counters of batch norm, further groups of queries."""
    return {name: value for name, value in module.state_dict().items() if not name.endswith(_TRAINING_ONLY)}


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: object) -> None:
    """Load parameters and statistics, all of them and no others; counters of batch norm don't matter.

    A module on the meta device takes the tensors themselves. Raises ``CheckpointError`` naming the first that is missing,
    left over or of another shape.
    """
    expected = network_state(module)
    given = {name: value for name, value in state.items() if not name.endswith(COUNTER)}
    wrong = [
        f"{name} has shape {list(value.shape)} instead of {list(expected[name].shape)}"
        for name, value in given.items()
        if name in expected and value.shape != expected[name].shape
    ]
    wrong += [f"{name} is missing" for name in expected if name not in given]
    wrong += [f"{name} is not part of the model" for name in given if name not in expected]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"{source} does not fit the model: {wrong[0]}{more}; give weights of this very architecture"
        )
    module.load_state_dict(given, strict=False, assign=any(value.is_meta for value in expected.values()))
