"""Arguments that several commands take, and a check of them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from conditional_detr.errors import InputError

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A run folder, a checkpoint folder, a .pth file (official, MMDetection) or a Hugging Face hub id.",
    ),
]
Dilation = Annotated[
    bool | None,
    typer.Option("--dc5/--no-dc5", help="Whether SOURCE is a DC5 model, for .pth files that do not say."),
]
Boxes = Annotated[
    Literal["image", "padded", "padded-with-mask"] | None,
    typer.Option(
        help="What the model's boxes are relative to, for transformers' fine-tunes on padded images.",
        show_default=False,
    ),
]
Optimize = Annotated[
    bool, typer.Option("--optimize", help="Faster: the same within rounding on a CPU, half precision on a GPU.")
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="--optimize with torch.compile, which takes up to a minute for the first images."),
]


def check_picture(out: Path, inputs: Iterable[Path]) -> None:
    """Raise ``InputError`` when a picture can't be written to ``out``, or would replace an input."""
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".pdf"):
        raise InputError(f"--out {out}: end the name in .png, .jpg or .pdf")
    if any(out.resolve() == path.resolve() for path in inputs):
        raise InputError(f"{out} would be replaced by a picture of that name; give another with --out")
