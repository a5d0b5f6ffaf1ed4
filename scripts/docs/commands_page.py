"""The reference page of the command line, made from typer's description of it."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import typer.main

from conditional_detr.cli.main import app


def page() -> str:
    """Return the page in Markdown."""
    parts = [
        "# Command line",
        "<!-- Written by scripts/docs/generate.py from src/conditional_detr/cli; do not edit. -->",
        "`--help` after a command prints the same. Results go to standard output, progress and warnings to standard error. `--json`\n"
        "prints what a program can read ([json.md](json.md)).",
        "| exit code | meaning |\n|---|---|\n| 0 | done |\n| 2 | the input is at fault: one sentence names it and the remedy |\n"
        "| 1 | any other failure |",
    ]
    root = typer.main.get_command(app)
    for name, command in _commands(root, "cdetr"):
        parts += _section(name, command)
    return "\n\n".join(parts) + "\n"


def _commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    for key, command in group.commands.items():
        yield f"{name} {key}", command
        if hasattr(command, "commands"):
            yield from _commands(command, f"{name} {key}")


def _section(name: str, command: Any) -> list[str]:
    with command.make_context(name, [], resilient_parsing=True) as context:
        parts = [f"## `{name}`", _text(command.help)]
        if hasattr(command, "commands"):
            return parts
        records = {each.name: each.get_help_record(context) for each in command.params if each.name != "help"}
    arguments = [
        (each.metavar or records[each.name][0], records[each.name][1])
        for each in command.params
        if each.param_type_name == "argument"
    ]
    options = [
        records[each.name] for each in command.params if each.param_type_name == "option" and each.name in records
    ]
    for what, rows in (("argument", arguments), ("option", options)):
        if rows:
            lines = [f"| `{_cell(names)}` | {_cell(_text(meaning))} |" for names, meaning in rows]
            parts.append("\n".join([f"| {what} | |", "|---|---|", *lines]))
    return parts


def _text(text: str | None) -> str:
    return re.sub(r"\s+", " ", inspect.cleandoc(text or "")).replace("<", "&lt;")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
