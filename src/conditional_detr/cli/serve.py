"""``cdetr serve`` and ``cdetr app``."""

import os
import sys
import threading
import webbrowser
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from conditional_detr.cli.log import note
from conditional_detr.cli.options import (
    Boxes,
    Compile,
    Dilation,
    Names,
    Optimize,
    Runtime,
    Source,
    open_detector,
    tell_runtime,
)
from conditional_detr.errors import SettingsError

if TYPE_CHECKING:
    from conditional_detr.inference.detector import Detector
    from conditional_detr.serve.logs import LogFormat
    from conditional_detr.serve.settings import ServerSettings

Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 for any free one.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ... (default: an accelerator if available).")]
Samples = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Images that the page offers (default: generated ones).")
]
_MIB = 2**20


def command(
    source: Source,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    runtime: Runtime = "auto",
    device: Device = None,
    batch: Annotated[int, typer.Option(min=1, help="Maximum number of images computed at once.")] = 8,
    wait_ms: Annotated[
        float, typer.Option(min=0, max=10_000, help="Time that an idle model waits for more images of a shape.")
    ] = 2.0,
    queue: Annotated[
        int, typer.Option(min=1, help="Maximum number of images accepted and not answered; then the answer is 429.")
    ] = 64,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Minimum score where a request gives none.")] = 0.5,
    name: Annotated[str, typer.Option(help="Name of the model in answers and in /v2/models/NAME.")] = "detector",
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="API keys, one in every line; requests have to give one.")
    ] = None,
    allow_urls: Annotated[
        str, typer.Option(metavar="HOST,...", help="Hosts that images are fetched from (*.example.org: all below).")
    ] = "",
    max_mib: Annotated[float, typer.Option(min=0.001, max=1_000_000, help="Maximum size of a request in MiB.")] = 32,
    max_pixels: Annotated[int, typer.Option(min=1, help="Maximum number of pixels of an image.")] = 50_000_000,
    max_images: Annotated[int, typer.Option(min=1, help="Maximum number of images in a request.")] = 16,
    seconds: Annotated[float, typer.Option(min=0.1, help="Maximum time of a request.")] = 30,
    drain_seconds: Annotated[float, typer.Option(min=0, help="Time that requests in flight have after SIGTERM.")] = 30,
    log_format: Annotated[
        Literal["auto", "text", "json"], typer.Option(help="auto: text on a terminal, JSON elsewhere.")
    ] = "auto",
    page: Annotated[bool, typer.Option("--page/--no-page", help="Show a page for trying the model at /.")] = True,
    samples: Samples = None,
    optimize: Optimize = False,
    compile: Compile = False,
    dilation: Dilation = None,
    boxes: Boxes = None,
    names: Names = None,
) -> None:
    """Answer requests over HTTP: POST /v1/detect, the Open Inference Protocol, /metrics, a page at / and /docs.

    SIGTERM stops the server once the requests in flight are answered; SIGHUP reads SOURCE again.
    """
    _need_packages()
    _share_cores()
    from conditional_detr.serve.settings import ServerSettings, read_keys

    if not name or not all(each.isascii() and (each.isalnum() or each in "._-") for each in name):
        raise SettingsError(
            f"--name is {name!r}; give letters, digits, '.', '_' and '-', because it is part of addresses"
        )
    settings = ServerSettings(
        name=name,
        batch_size=batch,
        wait_ms=wait_ms,
        queue=queue,
        max_bytes=round(max_mib * _MIB),
        max_pixels=max_pixels,
        max_images=min(max_images, queue),
        seconds=seconds,
        drain_seconds=drain_seconds,
        threshold=threshold,
        keys=() if api_key_file is None else read_keys(api_key_file),
        url_hosts=tuple(each.strip() for each in allow_urls.split(",") if each.strip()),
        samples=samples,
        page=page,
    )
    opening = partial(
        open_detector,
        source,
        device,
        dilation=dilation,
        boxes=boxes,
        names=names,
        runtime=runtime,
        optimize=optimize,
        compile=compile,
    )
    _run(opening, settings, host, port, log_format)


def app(
    source: Source,
    port: Port = 0,
    runtime: Runtime = "auto",
    device: Device = None,
    samples: Samples = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    optimize: Optimize = False,
    compile: Compile = False,
    dilation: Dilation = None,
    boxes: Boxes = None,
    names: Names = None,
) -> None:
    """Try a model in the browser: drop images, see boxes and what every attention head looks at."""
    _need_packages()
    _share_cores()
    from conditional_detr.serve.settings import ServerSettings

    opening = partial(
        open_detector,
        source,
        device,
        dilation=dilation,
        boxes=boxes,
        names=names,
        runtime=runtime,
        optimize=optimize,
        compile=compile,
    )

    def show(address: str) -> None:
        if browser:
            threading.Timer(0.5, webbrowser.open, [address]).start()

    _run(opening, ServerSettings(samples=samples), "127.0.0.1", port, "auto", show)


def _share_cores() -> None:
    """Let the threads of the server and of the model share few cores. It is called before torch is loaded.

    Threads of OpenMP would spin after each operation, and a thread that computes would keep Python from others for 5 ms
    (docs/serve.md has what both cost).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.setswitchinterval(0.0005)


def _need_packages() -> None:
    """Raise ``SettingsError`` when the packages of the server are not installed."""
    missing = [
        each
        for each in ("fastapi", "uvicorn", "prometheus_client", "python_multipart", "fastapi_offline")
        if not find_spec(each)
    ]
    if missing:
        raise SettingsError(f"the server needs {', '.join(missing)}: pip install 'conditional-detr[serve]'")


def _run(
    opening: "Callable[[], Detector]",
    settings: "ServerSettings",
    host: str,
    port: int,
    log_format: "LogFormat",
    on_start: "Callable[[str], None]" = lambda address: None,
) -> None:
    from conditional_detr.serve.logs import log_to_standard_error
    from conditional_detr.serve.server import listen, serve
    from conditional_detr.serve.service import Service

    listening = listen(host, port)
    service = Service(opening, settings)
    tell_runtime(service.loaded.detector)
    if not settings.keys and host not in ("127.0.0.1", "::1", "localhost"):
        note(f"warning: everybody who reaches {host} can use this server; --api-key-file restricts it", "yellow")

    def started(address: str) -> None:
        detector = service.loaded.detector
        note(f"serving {settings.name} ({detector!r}) at {address}; documentation: {address}/docs")
        log_to_standard_error(log_format)
        on_start(address)

    serve(service, listening, started)
