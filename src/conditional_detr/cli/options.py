"""Arguments that several commands take."""

from typing import Annotated, Literal

import typer

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
