"""The ``cdetr`` command."""

import io
import os
import sys
import warnings
from typing import Any, cast

import typer

from conditional_detr.cli import (
    attention,
    batch,
    benchmark,
    compare,
    convert,
    dataset,
    demo,
    evaluate,
    export,
    predict,
    push,
    serve,
    train,
)
from conditional_detr.cli.log import say, show_log
from conditional_detr.cli.options import OPTIONS
from conditional_detr.errors import InputError, NonFiniteError, RunError
from conditional_detr.text import printable

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Conditional DETR: train, evaluate, run, explain and convert the detector of Meng et al., ICCV 2021.",
)
app.command("train")(train.command)
app.command("evaluate")(evaluate.command)
app.command("predict")(predict.command)
app.command("batch")(batch.command)
app.command("attention")(attention.command)
app.command("compare")(compare.command)
app.command("benchmark")(benchmark.command)
app.command("convert")(convert.command)
app.command("export")(export.command)
app.command("push")(push.command)
app.command("serve")(serve.command)
app.command("app")(serve.app)
app.add_typer(dataset.app, name="dataset")
app.command("demo")(demo.command)


@app.callback(invoke_without_command=True)
def _options(  # pyright: ignore[reportUnusedFunction]
    version: bool = typer.Option(False, "--version", is_eager=True, help="Print the version and exit."),
) -> None:
    if version:
        from conditional_detr import __version__

        typer.echo(__version__)
        raise typer.Exit()


_PLACES = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
_UsageError = cast("type[Exception]", typer.BadParameter.__bases__[0])  # typer exports no name for it


def main() -> None:
    """Run ``cdetr``. The exit code is 2 for invalid input and 1 for any other error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for terminals that can't show all characters
    warnings.formatwarning = _one_line
    # Pillow warns above 89 million pixels and raises an error above twice as many; the error is enough.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit of")
    show_log()
    sys.exit(_run())


def _run() -> int:
    """Run the command of ``sys.argv``, print its error if there is one, and return the exit code."""
    try:
        code = app(prog_name="cdetr", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except InputError as error:
        option = OPTIONS.get(error.argument or "")
        return _fail(f"{error} (here: {option})" if option else error, 2)
    except (NonFiniteError, RunError) as error:
        return _fail(error, 1)
    except OSError as error:
        reason = error.strerror or str(error)
        # A path that can't be read or written is invalid input; any other error, such as a full disk, is not.
        code = 2 if isinstance(error, _PLACES) else 1
        _drop_unwritten_output()
        return _fail(reason if error.filename is None else f"{error.filename}: {reason}", code)
    except _UsageError as error:
        return _misused(error)


def _misused(error: Any) -> int:
    """Print an error of the command line's syntax, or the help of a command without arguments. Return the exit code."""
    text: str = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":  # rich has printed the help already; the text is then empty
        if text:
            typer.echo(text, err=True)
        return error.exit_code
    return _fail(f"{text} (see {error.ctx.command_path if error.ctx else 'cdetr'} --help)", error.exit_code)


def _drop_unwritten_output() -> None:
    """Leave out what standard output can't take, such as on a full disk, because Python would try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(message: Warning | str, *_: object) -> str:
    return f"{printable(f'warning: {message}')}\n"


def _fail(error: Exception | str, code: int) -> int:
    say(f"error: {error}", err=True)
    return code


if __name__ == "__main__":
    main()
