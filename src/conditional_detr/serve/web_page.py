"""The page at ``/``, and the images it offers to try."""

from importlib import resources
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response

from conditional_detr.data.images import SUFFIXES, open_image
from conditional_detr.data.scenes import draw_scene
from conditional_detr.drawing import jpeg
from conditional_detr.errors import SettingsError

_SIZE = 640  # pixels, of the longer side of a generated image
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Samples:
    """Images of a folder, or without one generated scenes. Raises ``SettingsError`` for a folder without images."""

    def __init__(self, folder: Path | None) -> None:
        self.files: list[Path] = []
        if folder is not None:
            try:
                self.files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
            except OSError as error:
                raise SettingsError(f"{folder} can't be read ({error.strerror}); name a folder of images") from error
            if not self.files:
                raise SettingsError(f"folder {folder} holds no images; name another")

    def read(self, number: int) -> bytes:
        """Return an image as JPEG. number: any whole number. Raises ``ImageError``."""
        if self.files:
            image = open_image(self.files[number % len(self.files)])
        else:
            image = draw_scene(0, number % 10_000, _SIZE, "samples").image
        return jpeg(image)


def add_page(app: FastAPI, samples: Samples) -> None:
    """Add the routes."""
    folder = Path(str(resources.files("conditional_detr") / "serve" / "page"))
    app.mount("/page", StaticFiles(directory=folder))

    @app.get("/", include_in_schema=False)
    def page() -> Response:  # pyright: ignore[reportUnusedFunction]
        html = (folder / "index.html").read_text(encoding="utf-8")
        return Response(html, media_type="text/html", headers={"Content-Security-Policy": _POLICY})

    @app.get("/v1/sample", tags=["model"], summary="An image to try", responses={200: {"content": {"image/jpeg": {}}}})
    def sample(number: int = 0) -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(samples.read(number), media_type="image/jpeg")
