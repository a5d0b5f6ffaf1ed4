"""What a checkpoint is, whatever its format, and how its parameters get into a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor, nn

from conditional_detr.checkpoints.names import Layout
from conditional_detr.config import ModelSettings
from conditional_detr.data.transforms import InputSize
from conditional_detr.errors import InputError
from conditional_detr.model.network import DETR
from conditional_detr.structures import Categories

Format = Literal["huggingface", "official", "mmdetection"]
OWN_KEY = "conditional_detr"  # in every format: what it has no field for
HEAD = ("class_head.weight", "class_head.bias")  # rows: a logit each
COUNTER = "num_batches_tracked"  # of trained batch norm; formats have it or not, and nothing here uses it
_TRAINING_ONLY = (COUNTER, "decoder.further_groups.weight")


@dataclass(frozen=True)
class Origin:
    """Where a checkpoint came from.

    names: our parameter names -> names in the file. left_out: what else the file holds -> why it was not taken.
    """

    format: Format
    layout: Layout
    names: Mapping[str, list[str]]
    left_out: Mapping[str, str]


class Written(NamedTuple):
    """What a writer did. names: our parameter names -> names in the file. remarks: what else happened, in sentences."""

    names: Mapping[str, list[str]]
    remarks: list[str]


@dataclass(frozen=True)
class Checkpoint:
    """A network and what is needed to use it. settings: those the network was built of."""

    model: DETR
    settings: ModelSettings
    categories: Categories
    input_size: InputSize
    origin: Origin | None = None


def network_state(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and statistics without what only training has: counters of batch norm, further groups of queries."""
    return {name: value for name, value in module.state_dict().items() if not name.endswith(_TRAINING_ONLY)}


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], source: Path) -> None:
    """Load parameters and statistics, all of them and no others; counters of batch norm don't matter.

    Raises ``InputError`` naming the first that is missing, left over or of another shape.
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
        raise InputError(f"{source} does not fit the model: {wrong[0]}{more}; give weights of this very architecture")

    module.load_state_dict(given, strict=False)
