"""What the formats of programs with the published networks have in common."""

from pathlib import Path

from conditional_detr.checkpoints.checkpoint import Checkpoint
from conditional_detr.errors import CheckpointError
from conditional_detr.record import Architecture, InputSize

STANDARD_TEMPERATURE = Architecture().position_temperature


def about_input_size(checkpoint: Checkpoint, program: str) -> list[str]:
    """Return a remark when ``program`` has to be told an image size."""
    size = checkpoint.input_size
    if size == InputSize():
        return []
    return [
        f"the model was made for images of {size.sides} pixels ({size.rule}): set {program}'s preprocessing to that"
    ]


def check_published_network(checkpoint: Checkpoint, program: str) -> None:
    """Raise ``CheckpointError`` when ``program``, which has the published networks only, would compute something else."""
    architecture = checkpoint.architecture
    published = "sigmoid" if architecture.decoder == "conditional" else "softmax"
    named = isinstance(architecture.backbone, str)
    different = {
        "a backbone of its own shape": not named,
        f"the backbone {architecture.backbone}": named and architecture.backbone_family != "resnet",
        f"position_temperature={architecture.position_temperature:g}": architecture.position_temperature
        != STANDARD_TEMPERATURE,
        f"{architecture.classification} classification": architecture.classification != published,
        "norm_between_layers": architecture.norm_between_layers,
        "boxes relative to the padded image": checkpoint.input_size.boxes != "image",
    }
    for what, is_different in different.items():
        if is_different:
            raise CheckpointError(
                f"{program} does not have {what}, so it can't open this model; convert to huggingface instead"
            )


def check_file(out: Path, to: str, timm_backbone: bool | None) -> None:
    """Raise ``CheckpointError`` when a ``.pth`` file can't be written as asked."""
    if timm_backbone is not None:
        raise CheckpointError(
            f"a backbone with timm's names exists for huggingface only, not for {to}; leave it out",
            argument="timm_backbone",
        )
    if out.is_dir() or not out.suffix:
        raise CheckpointError(f"{out} names a folder, but {to} is a file; call it {out}.pth")
