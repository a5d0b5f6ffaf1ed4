"""Find the weights in the content of a file: the keys they lie under, and the prefix of their names.

Training programs save weights as they are or under keys (``model``, ``state_dict``, ``ema``), and wrappers of a network put the
name of their attribute in front of every name (``module.``, ``model.``, ``_orig_mod.``, also several). Neither is looked up in
a list: weights are where the names of parameters are, and the prefix is what stands in front of them.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from conditional_detr.errors import CheckpointError

_DEEPEST = 3  # keys that weights may lie under
_MOST = 8  # sets of weights in one mapping
# Wrappers of parts of a network. In front of all names they are a prefix like any other.
_INNER_WRAPPER = re.compile(r"(?<=\.)(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_AVERAGED = re.compile(r"(?:^|[^a-z])(?:ema|swa|avg|averaged?)(?:[^a-z]|$)")


class Weights(NamedTuple):
    """A set of weights in a file.

    path: keys that it lies under. prefix: what its names begin with. entries: name without the prefix -> name in the file and
    value. outside: names in the same mapping that belong to no set.
    """

    path: tuple[str, ...]
    prefix: str
    entries: dict[str, tuple[str, Any]]
    outside: list[str]

    @property
    def label(self) -> str:
        """Keys and prefix, for messages."""
        return ".".join((*self.path, self.prefix.removesuffix("."))).strip(".") or "top level"

    @property
    def averaged(self) -> bool:
        """True if keys or prefix say that the weights are averages over training."""
        return _AVERAGED.search(self.label.lower()) is not None

    def key_beside(self, other: "Weights") -> str:
        """Return the key that tells this set apart from another one: the first that the other does not lie under."""
        beside = (key for i, key in enumerate(self.path) if other.path[i : i + 1] != (key,))
        return next(beside, self.label)


def find_weights(content: Mapping[Any, Any], anchors: Collection[str], source: object) -> list[Weights]:
    """Return all sets of weights in a file.

    anchors: names of parameters, without prefix, that a set is found by. Raises ``CheckpointError`` for two names of one parameter.
    """
    return [each for path, mapping in mappings(content) for each in _sets(path, mapping, anchors, source)]


def choose(sets: list[Weights], plain: Collection[str], source: object) -> Weights:
    """Return the set to use. Averaged weights come before others, because training evaluates them.

    plain: keys of weights that are not averaged, whatever the key says, beside averaged ones. Raises ``CheckpointError`` for
    sets that nothing tells apart, and when only some names of a set have a prefix.
    """
    for one, other in combinations(sets, 2):
        if one.path == other.path and not one.entries.keys() & other.entries.keys():  # two parts of one model
            names, others = ([name for name, _ in each.entries.values()] for each in (one, other))
            raise partly_prefixed(one.prefix, names, others[0], source)
    different: list[Weights] = []
    for each in sets:
        if not any(_equal(each, other) for other in different):
            different.append(each)
    if len(different) > 1:
        different = [each for each in different if not set(each.path) & set(plain)] or different
        different = [each for each in different if each.averaged] or different
    if len(different) > 1:
        labels = ", ".join(repr(each.label[:60]) for each in different)
        raise CheckpointError(f"{source} holds several models ({labels}); save the one to use in a file of its own")
    return different[0]


def beside(content: Mapping[Any, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Return what a file holds beside the weights under ``path``: entries beside those keys, and entries that are no tensors."""
    rest: dict[str, Any] = {}
    for key in path:
        rest |= {name: value for name, value in content.items() if isinstance(name, str) and name != key}
        content = content[key]
    return rest | {
        name: value for name, value in content.items() if isinstance(name, str) and not isinstance(value, Tensor)
    }


def shown(name: str) -> str:
    """Return a name as it is if it is short and printable, so that a message stays one line."""
    return name if len(name) <= 200 and name.isprintable() else repr(name[:200])


def endings(name: str) -> Iterator[str]:
    """Yield a name, then the name without its first part, and so on; ten at most."""
    parts = name.rsplit(".", 10)
    return (".".join(parts[start:]) for start in range(len(parts)))


def partly_prefixed(prefix: str, names: list[str], other: str, source: object) -> CheckpointError:
    """Return the error for weights of which some names begin with ``prefix``, and ``other`` does not."""
    return CheckpointError(
        f"{source}: the prefix {prefix[:60]!r} is in front of {len(names)} names of weights (such as {names[0]}), but not of others "
        f"(such as {other}); give weights in which all names have it, or none"
    )


def mappings(
    content: Mapping[Any, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Yield the content of a file and the mappings in it that may be weights, with the keys that they lie under."""
    yield path, content
    for key, value in content.items() if len(path) < _DEEPEST else ():
        if isinstance(key, str) and isinstance(value, Mapping) and not key.startswith("optim"):
            yield from mappings(cast("Mapping[Any, Any]", value), (*path, key))


def _sets(path: tuple[str, ...], mapping: Mapping[Any, Any], anchors: Collection[str], source: object) -> list[Weights]:
    names = {name: _INNER_WRAPPER.sub("", name) for name in mapping if isinstance(name, str)}
    counts = Counter(prefix for name in names.values() if (prefix := _prefix(name, anchors)) is not None).most_common()
    prefixes = [prefix for prefix, count in counts[:_MOST] if 2 * count >= counts[0][1]]
    prefixes.sort(key=len, reverse=True)  # a name belongs to the longest prefix that it begins with
    found: dict[str, dict[str, tuple[str, Any]]] = {prefix: {} for prefix in prefixes}
    outside: list[str] = []
    for name, cleaned in names.items():
        prefix = next((each for each in prefixes if cleaned.startswith(each)), None)
        if prefix is None:
            outside.append(shown(name))
            continue
        short = cleaned.removeprefix(prefix)
        if short in found[prefix]:
            first = found[prefix][short][0]
            raise CheckpointError(f"{source}: {first} and {shown(name)} are the same parameter; remove one of them")
        found[prefix][short] = shown(name), mapping[name]
    return [Weights(path, prefix, entries, outside) for prefix, entries in found.items()]


def _prefix(name: str, anchors: Collection[str]) -> str | None:
    """Return what stands in front of an anchor at the end of a name; None for a name that ends in none."""
    return next((name.removesuffix(end) for end in endings(name) if end in anchors), None)


def _equal(one: Weights, other: Weights) -> bool:
    """Return True if two sets hold the same names and values."""
    if one.entries.keys() != other.entries.keys():
        return False
    pairs = ((value, other.entries[name][1]) for name, (_, value) in one.entries.items())
    return all(
        isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs
    )
