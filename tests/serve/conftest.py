"""A served starter, and images for it."""

import io
import threading
from contextlib import contextmanager

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra [serve] is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

from starlette.testclient import TestClient

from conditional_detr.data.scenes import draw_scene
from conditional_detr.inference.detector import Detector
from conditional_detr.serve.http import create_app
from conditional_detr.serve.server import Server, listen
from conditional_detr.serve.service import Service
from conditional_detr.serve.settings import ServerSettings


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    content = io.BytesIO()
    image.save(content, form)
    return content.getvalue()


@pytest.fixture(scope="session")
def starter() -> Detector:
    return Detector.from_pretrained("starter:tiny", "cpu")


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """A generated scene, in which the starter finds objects."""
    return draw_scene(0, 1, 256, "test").image


@pytest.fixture(scope="session")
def png(picture) -> bytes:
    return encoded(picture)


@pytest.fixture
def serving(starter):
    """Start services with given settings, and return clients of them."""
    services: list[Service] = []

    def start(open_detector=lambda: starter, **settings) -> TestClient:
        service = Service(open_detector, ServerSettings(**settings))
        services.append(service)
        client = TestClient(create_app(service), raise_server_exceptions=False)
        client.service = service
        return client

    yield start
    for service in services:
        service.close()


@pytest.fixture
def client(serving) -> TestClient:
    return serving()


@pytest.fixture
def live(starter):
    """Run servers on free ports in threads, and give their addresses."""

    @contextmanager
    def run(open_detector=lambda: starter, **settings):
        service = Service(open_detector, ServerSettings(**settings))
        listening = listen("127.0.0.1", 0)
        listening.listen(100)
        server = Server(service)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            service.close()

    return run
