"""The ``cdetr`` command."""

import sys
import warnings

import typer

from conditional_detr.cli import attention, benchmark, compare, convert, dataset, demo, evaluate, predict, train
from conditional_detr.cli.log import show_log
from conditional_detr.cli.options import OPTIONS
from conditional_detr.errors import InputError, NonFiniteError, RunError

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Conditional DETR: train, evaluate, run, explain and convert the detector of Meng et al., ICCV 2021.",
)
app.command("train")(train.command)
app.command("evaluate")(evaluate.command)
app.command("predict")(predict.command)
app.command("attention")(attention.command)
app.command("compare")(compare.command)
app.command("benchmark")(benchmark.command)
app.command("convert")(convert.command)
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


def main() -> None:
    """Run ``cdetr``. The exit code is 2 for invalid input and 1 for any other error."""
    warnings.formatwarning = _one_line
    # Pillow warns above 89 million pixels and raises an error above twice as many; the error is enough.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit of")
    show_log()
    try:
        app()
    except InputError as error:
        option = OPTIONS.get(error.argument or "")
        sys.exit(_say(f"{error} (here: {option})" if option else error, 2))
    except (NonFiniteError, RunError) as error:
        sys.exit(_say(error, 1))
    except OSError as error:
        if error.filename is None:
            raise
        # A path that can't be read or written is invalid input; any other error, such as a full disk, is not.
        sys.exit(_say(f"{error.filename}: {error.strerror}", 2 if isinstance(error, _PLACES) else 1))


def _one_line(message: Warning | str, *_: object) -> str:
    return f"warning: {message}\n"


def _say(error: Exception | str, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
