"""Read the requests of ``/v1``: multipart forms, JSON, and plain image files."""

import asyncio
import base64
import binascii
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from conditional_detr.errors import SettingsError, did_you_mean
from conditional_detr.inference.detector import Detector
from conditional_detr.record import Categories
from conditional_detr.serve.fetching import fetch
from conditional_detr.serve.refusals import Refusal, invalid, too_large
from conditional_detr.serve.schemas import DetectRequest, ImageSource, Options
from conditional_detr.serve.service import Service, Upload
from conditional_detr.structures import Detections

_DATA_URL = re.compile(r"data:[\w/+.-]*;base64,")
_FIELD = re.compile(r"(?!str$|int$|float$)\w+")  # not the names of alternatives, which pydantic puts between fields
_FILES = ("image", "images", "file", "files")  # names of form fields that hold images
Model = TypeVar("Model", bound=BaseModel)


class Asked(NamedTuple):
    """A request that was read."""

    uploads: list[Upload]
    options: Any


class Filter(NamedTuple):
    """Which detections a request asks for. threshold: one for all, or one for each category id. ids: None for all categories."""

    threshold: float | dict[int, float]
    top: int | None
    ids: frozenset[int] | None

    def of(self, everything: Detections) -> Detections:
        """Return the detections asked for, most confident first."""
        found = everything.above(self.threshold)
        if self.ids is not None:
            found = found[[label in self.ids for label in found.labels.tolist()]]
        return found if self.top is None else found[: self.top]


async def read_request(request: Request, service: Service, form: type[BaseModel]) -> Asked:
    """Read images and options. form: kind of the options. Raises ``Refusal``."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    query = _texts(request.query_params.multi_items())
    if kind == "application/json" and form is Options:
        asked = read_json(DetectRequest, await request.body())
        if query:
            raise invalid(f"{', '.join(query)} can't be given in the address of a JSON request; give it in the JSON")
        return Asked(await _sources(asked.images, request, service), asked)
    if kind == "multipart/form-data":
        most = service.settings.max_images
        async with request.form(max_files=most, max_fields=64, max_part_size=2**20) as fields:
            uploads: list[Upload] = []
            texts: list[tuple[str, str]] = []
            for key, value in fields.multi_items():
                if isinstance(value, UploadFile):
                    if key not in _FILES:
                        raise invalid(f"form field {key!r} holds a file; name the field of an image 'image'")
                    uploads.append(Upload(value.filename or f"image {len(uploads) + 1}", await value.read()))
                elif key in _FILES:
                    raise invalid(f"form field {key!r} is text; send a file, with curl as -F {key}=@FILE")
                else:
                    texts.append((key, value))
        given = _texts(texts)
        if both := sorted(set(given) & set(query)):
            raise invalid(f"{', '.join(both)} is in the address and in the form; give it once")
        if not uploads:
            raise invalid("the form holds no image; send a file in the field 'image', with curl as -F image=@FILE")
        return Asked(uploads, read_texts(form, {**query, **given}))
    if kind.startswith("image/") or kind == "application/octet-stream":
        content = await request.body()
        return Asked([Upload("image", content)], read_texts(form, query))
    kinds = f"multipart/form-data{', application/json' if form is Options else ''} or an image file"
    raise Refusal(415, "unsupported_media_type", f"content type {kind or 'none'!r} can't be read; send {kinds}")


def _texts(items: list[tuple[str, str]]) -> dict[str, Any]:
    """Return fields by name. Classes may be repeated, or have commas between them; another field may not be repeated."""
    found: dict[str, Any] = {}
    for key, value in items:
        if key == "classes":
            found.setdefault(key, []).extend(each.strip() for each in value.split(","))
        elif key in found:
            raise invalid(f"{key} is given twice; give it once")
        else:
            found[key] = value
    return found


def read_texts(form: type[Model], texts: Mapping[str, Any]) -> Model:
    """Read fields that are texts. Raises ``Refusal``."""
    try:
        return form.model_validate(dict(texts), strict=False)
    except ValidationError as error:
        raise invalid(_sentence(error, form)) from error


def read_json(form: type[Model], body: bytes) -> Model:
    """Read a body in JSON. Raises ``Refusal``."""
    try:
        return form.model_validate_json(body)
    except ValidationError as error:
        raise invalid(_sentence(error, form)) from error


def _sentence(error: ValidationError, form: type[BaseModel]) -> str:
    """Return the first error in one sentence."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(each) for each in first["loc"] if isinstance(each, int) or _FIELD.fullmatch(each))[:100]
    if first["type"] == "json_invalid":
        return f"the body is not JSON ({first['ctx']['error'] if 'ctx' in first else first['msg']}); correct it"
    if first["type"] == "extra_forbidden":
        known = list(form.model_fields)
        return f"{place!r} is not a field{did_you_mean(str(first['loc'][-1]), known)}; fields: {', '.join(known)}"
    return f"{place or 'the body'}: {first['msg'][0].lower()}{first['msg'][1:]}; correct it"


async def _sources(sources: list[ImageSource], request: Request, service: Service) -> list[Upload]:
    settings = service.settings
    if len(sources) > settings.max_images:
        raise too_large(f"{len(sources)} images in a request; send at most {settings.max_images}")
    uploads: list[Upload] = []
    for number, source in enumerate(sources, 1):
        name = source.name or f"image {number}"
        if (source.base64 is None) == (source.url is None):
            raise invalid(f"{name}: give either base64 or url")
        if source.base64 is not None:
            uploads.append(Upload(name, decode_base64(source.base64, name)))
            continue
        assert source.url is not None
        if not settings.url_hosts:
            raise Refusal(403, "host_not_allowed", "this server fetches no images; send the image itself in base64")
        get = partial(
            fetch,
            source.url,
            settings.url_hosts,
            max_bytes=settings.max_bytes,
            deadline=request.state.deadline,
        )
        content = await asyncio.get_running_loop().run_in_executor(None, get)
        uploads.append(Upload(source.name or source.url, content))
    return uploads


def decode_base64(text: str, name: str) -> bytes:
    """Return the bytes of base64 text, which may be a data URL. Raises ``Refusal``."""
    try:
        return base64.b64decode(_DATA_URL.sub("", text, count=1), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"{name}: base64 can't be decoded ({error}); correct it") from error


def read_filter(options: Options, detector: Detector, default: float) -> Filter:
    """Return which detections are asked for. default: threshold of a request that gives none.

    Raises ``Refusal`` for categories and a threshold that the model does not have.
    """
    try:
        numbers = detector.thresholds(default if options.threshold is None else options.threshold)
    except SettingsError as error:
        raise invalid(str(error)) from error
    ids = None
    if options.classes is not None:
        ids = frozenset(_category_id(each, detector.categories) for each in options.classes)
    return Filter(numbers, options.top, ids)


def _category_id(wanted: str | int, categories: Categories) -> int:
    """Return the id of a category that is given by its name or id."""
    by_name = dict(zip(categories.names, categories.ids, strict=True))
    if wanted in by_name:
        return by_name[wanted]
    text = str(wanted)
    if text.isascii() and text.isdigit() and len(text) < 19 and int(text) in categories.ids:
        return int(text)
    raise invalid(
        f"this model has no category {text[:60]!r}{did_you_mean(text, categories.names)}; /v1/model lists them"
    )
