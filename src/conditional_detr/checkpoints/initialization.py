"""Fine-tuning: initialize a model from a checkpoint with other categories or another number of queries."""

from conditional_detr.architecture import Architecture, BackboneShape
from conditional_detr.checkpoints.checkpoint import Checkpoint, load_strictly, network_state
from conditional_detr.checkpoints.coco_categories import UNUSED
from conditional_detr.errors import CheckpointError
from conditional_detr.model.backbones import family
from conditional_detr.model.network import DETR
from conditional_detr.record import Categories


def initialize(
    model: DETR, architecture: Architecture, categories: Categories, start: Checkpoint, source: str
) -> list[str]:
    """Load a checkpoint into a new model. Return sentences that say what was kept and what was replaced.

    Rows of the class head are kept for categories of the same name; other rows keep their random initialization. If the model
    has more queries than the checkpoint, the additional ones keep their random initialization. If it has fewer, the first
    ones are loaded. source: name of the checkpoint, for messages. Raises ``CheckpointError`` for any other difference between
    the networks.
    """
    different = [
        key
        for key in architecture.fits(start.architecture)
        if key != "backbone" or not _same_backbone(architecture, start.architecture)
    ]
    if different:
        theirs = " ".join(_as_setting(key, getattr(start.architecture, key)) for key in different)
        raise CheckpointError(
            f"model.init_from={source} is a different network; use the preset that fits it, or set {theirs}"
        )

    state = network_state(start.model)
    own = network_state(model)
    messages = [f"starting from {source}: all weights are kept, except as listed below"]
    known = [(name, row) for row, name in enumerate(start.categories.names) if name != UNUSED]
    row_of = {name.casefold(): row for name, row in known} | dict(known)  # exact names come first, then case is ignored
    rows = [row_of.get(name, row_of.get(name.casefold())) for name in categories.names]
    if categories.names == start.categories.names:
        messages.append(f"class head: kept, the {len(categories)} categories are the same")
    else:
        kept = [i for i, row in enumerate(rows) if row is not None]
        taken = [row for row in rows if row is not None]
        for name in ("class_head.weight", "class_head.bias"):
            head = own[name].clone()
            head[kept] = state[name][taken]
            if architecture.softmax and start.categories:  # the row of "no object"
                head[-1] = state[name][-1]
            state[name] = head
        if start.categories:
            messages.append(_about_classes(categories, kept, len(start.categories)))
        else:
            messages.append(f"class head: new for all {len(categories)} categories, because the checkpoint has none")

    name = "decoder.query_position.weight"
    ours, theirs = len(own[name]), len(state[name])
    if ours != theirs:
        queries = own[name].clone()
        queries[:theirs] = state[name][:ours]
        state[name] = queries
    if ours > theirs:
        messages.append(f"queries: {theirs} kept, {ours - theirs} new ones start from random positions")
    elif ours < theirs:
        messages.append(f"queries: the first {ours} of {theirs} kept, because model.queries={ours}")
    else:
        messages.append(f"queries: all {ours} kept")
    if start.input_size.boxes != "image":
        messages.append("its boxes are relative to padded images; training makes them relative to the image itself")
    load_strictly(model, state, source)
    return messages


def _same_backbone(a: Architecture, b: Architecture) -> bool:
    """Return True if two architectures have the same backbone, be it given by name or by shape."""
    if a.backbone_family != b.backbone_family:
        return False
    shapes = [family(each.backbone_family).to_transformers(each.backbone) for each in (a, b)]
    return a.backbone == b.backbone or (shapes[0] is not None and shapes[0] == shapes[1])


def _about_classes(categories: Categories, kept: list[int], of: int) -> str:
    new = [name for i, name in enumerate(categories.names) if i not in kept]
    same = ", ".join(categories.names[i] for i in kept) or "none"
    return (
        f"class head: replaced, because the {len(categories)} categories are not the {of} of the checkpoint; "
        f"rows kept by name: {same}; new rows: {', '.join(new) or 'none'}"
    )


def _as_setting(key: str, value: object) -> str:
    """Format a setting as ``key=value``, quoted for a shell."""
    if isinstance(value, BackboneShape):
        shape = str(value.model_dump(mode="json")).replace("'", "")
        return f"'model.{key}={shape}'"
    return f"model.{key}={str(value).lower() if isinstance(value, bool) else value}"
