"""Run a service as an HTTP server until a signal stops it."""

import asyncio
import errno
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from conditional_detr.errors import SettingsError
from conditional_detr.serve.guard import Guard
from conditional_detr.serve.http import create_app
from conditional_detr.serve.service import Service

logger = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address. port: 0 for any free one. Raises ``SettingsError``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"port {port} of {host} is in use; stop what uses it, or give another port", argument="port"
            ) from error
        if error.errno == errno.EACCES:
            raise SettingsError(f"port {port} needs more rights; give a port from 1024", argument="port") from error
        raise SettingsError(
            f"this machine has no address {host!r} ({error.strerror or error}); give one of its own", argument="host"
        ) from error
    return listening


class Server(uvicorn.Server):
    """HTTP server of a service. SIGTERM and Ctrl-C stop it once the requests in flight are answered; SIGHUP reloads the model.

    A second SIGTERM or Ctrl-C stops it at once.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.guard: Guard = create_app(service)
        config = uvicorn.Config(
            self.guard,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop. Uvicorn calls it for SIGTERM and SIGINT."""
        if self.service.stopping or self._loop is None:
            self.should_exit = self.force_exit = True
            return
        self.service.stopping = True
        self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self._drain()))

    async def _drain(self) -> None:
        """Wait until the requests in flight are answered, at most for the time of the settings, and stop."""
        seconds = self.service.settings.drain_seconds
        logger.info(f"shutting down: {self.guard.active} requests are in flight")
        until = time.monotonic() + seconds
        while self.guard.active and time.monotonic() < until:
            await asyncio.sleep(0.02)
        if self.guard.active:
            logger.warning(f"{self.guard.active} requests were not answered within {seconds:g} s")
            self.force_exit = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        await super().startup(sockets=sockets)

    def _reload(self) -> None:
        threading.Thread(target=self.service.reload, name="reload", daemon=True).start()


def serve(service: Service, listening: socket.socket, on_start: Callable[[str], None] = lambda address: None) -> None:
    """Answer requests until a signal stops the server. listening: as ``listen`` returns it. on_start: called with the address."""
    server = Server(service)
    listening.listen(2048)
    host, port = listening.getsockname()[:2]
    on_start(f"http://{f'[{host}]' if ':' in host else host}:{port}")
    try:
        server.run(sockets=[listening])
    finally:
        service.close()
