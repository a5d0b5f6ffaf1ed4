"""``cdetr convert``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from conditional_detr.checkpoints.formats import FORMATS
from conditional_detr.cli.log import say
from conditional_detr.cli.options import Boxes, Dilation, Names, Weights
from conditional_detr.cli.tables import aligned


def command(
    source: Weights,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder (huggingface) or .pth file.")],
    to: Annotated[
        str, typer.Option(metavar=f"[{'|'.join(FORMATS)}]", help="The format of OUT.", autocompletion=lambda: FORMATS)
    ],
    timm_backbone: Annotated[
        bool | None,
        typer.Option(
            "--timm-backbone/--native-backbone",
            help="huggingface: name the weights of the backbone as timm does, as on the hub (default: for DC5 only).",
        ),
    ] = None,
    dilation: Dilation = None,
    boxes: Boxes = None,
    names: Names = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Write a checkpoint in another format, such as: cdetr convert model.pth out --to huggingface"""
    from conditional_detr.checkpoints.conversion import convert
    from conditional_detr.checkpoints.opening import open_checkpoint

    checkpoint = open_checkpoint(source, dilation, boxes, names=names)
    rows, remarks = convert(checkpoint, out, to, timm_backbone)
    assert checkpoint.origin is not None  # it was opened
    source_format = checkpoint.origin.format
    if as_json:
        typer.echo(
            json.dumps({"from": source_format, "to": to, "rows": [row._asdict() for row in rows], "remarks": remarks})
        )
        return
    lines = [("tensors", f"{source_format}: {source}", f"{to}: {out}", "what")]
    lines += [(str(row.tensors), row.source, row.target or "-", row.what) for row in rows]
    say(*aligned(lines, left=(1, 2, 3)), *remarks)
    dropped = sum(row.tensors for row in rows if not row.target)
    total = sum(row.tensors for row in rows if row.target)
    left = f"{dropped} entries of the source were left out, see the table" if dropped else "nothing was left out"
    kind = type(checkpoint.model).__name__
    say(f"{total} parameters and statistics of a {kind} written to {out}; {left}")
