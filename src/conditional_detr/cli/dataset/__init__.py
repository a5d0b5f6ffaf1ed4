"""``cdetr dataset``: a module per command."""

import typer

from conditional_detr.cli.dataset import check, convert, scenes, shapes, show, split

app = typer.Typer(no_args_is_help=True, help="Check, show, convert, split and generate data sets.")
app.command("check")(check.command)
app.command("show")(show.command)
app.command("convert")(convert.command)
app.command("split")(split.command)
app.command("shapes")(shapes.command)
app.command("scenes")(scenes.command)
