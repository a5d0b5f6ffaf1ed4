"""``cdetr push``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from conditional_detr.cli.log import note, say
from conditional_detr.cli.options import Weights


def command(
    source: Weights,
    repo_id: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hugging Face hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    license: Annotated[
        str | None,
        typer.Option(metavar="ID", help="License of the weights, such as apache-2.0 (default: none is named)."),
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Upload pictures that show images of the data.")
    ] = True,
    message: Annotated[str, typer.Option(help="Message of the commit.")] = "Upload model",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Upload the best model of a run with a model card, such as: cdetr push runs/mine my-organization/my-detector"""
    from conditional_detr.checkpoints.opening import open_checkpoint
    from conditional_detr.hub import push

    run = Path(source)
    pushed = push(
        open_checkpoint(source),
        repo_id,
        run=run if (run / "config.yaml").is_file() else None,
        private=private,
        license=license,
        pictures=pictures,
        message=message,
    )
    for remark in pushed.remarks:
        note(remark)
    if as_json:
        typer.echo(json.dumps(pushed._asdict()))
        return
    say(*(f"uploaded     {name}" for name in pushed.files))
    say(f"model card   {pushed.url}", f"predict with: cdetr predict {repo_id} IMAGE ...")
