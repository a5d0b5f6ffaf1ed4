"""``/v1/detect``."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from conditional_detr.drawing import jpeg
from conditional_detr.serve import schemas
from conditional_detr.serve.answering import ERRORS, answered, json_response, request_body
from conditional_detr.serve.refusals import invalid
from conditional_detr.serve.requests import Filter, read_filter, read_request
from conditional_detr.serve.service import Found, Loaded, Service


def add_detection(app: FastAPI, service: Service) -> None:
    """Add the route."""

    @app.post(
        "/v1/detect",
        tags=["detection"],
        summary="Find the objects in images",
        response_model=schemas.DetectResponse | schemas.CocoResponse,
        responses={**ERRORS, 200: {"content": {"image/jpeg": {}}}},
        openapi_extra=request_body(schemas.Options, json=schemas.DetectRequest),
    )
    async def detect(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Send images as files of a form, as JSON with base64 or URLs, or one image file as the body."""
        start = time.monotonic()
        loaded = service.loaded
        uploads, options = await read_request(request, service, schemas.Options)
        wanted = options.format
        if "format" not in options.model_fields_set and "image/jpeg" in request.headers.get("accept", ""):
            wanted = "picture"
        chosen = read_filter(options, loaded.detector, service.settings.threshold)
        if wanted == "picture" and len(uploads) != 1:
            raise invalid(f"a picture shows one image, and the request has {len(uploads)}; send one")
        found = await answered(request, service.detect(uploads, request.state.deadline, loaded))
        kept = [chosen.of(each.detections) for each in found]
        request.state.images, request.state.objects = len(found), sum(map(len, kept))
        if wanted == "picture":
            return Response(
                await service.in_thread(partial(_picture, service, found[0], chosen)), media_type="image/jpeg"
            )
        if wanted == "coco":
            return json_response(_coco(found, chosen, loaded))
        return json_response(
            schemas.DetectResponse(
                model=schemas.ModelVersion(name=service.settings.name, version=loaded.version),
                request_id=request.state.request_id,
                images=[_result(each, chosen) for each in found],
                milliseconds=_milliseconds(found, time.monotonic() - start),
            )
        )


def _result(found: Found, chosen: Filter) -> schemas.ImageResult:
    objects = [
        schemas.DetectedObject(box=each.box, score=each.score, category_id=each.label, category_name=each.name)
        for each in chosen.of(found.detections)
    ]
    best = float(found.detections.scores.max())
    return schemas.ImageResult(
        name=found.upload.name, width=found.size[1], height=found.size[0], best_score=best, objects=objects
    )


def _milliseconds(found: Sequence[Found], total: float) -> schemas.Milliseconds:
    slowest = {
        part: 1000 * max(getattr(each, name) for each in found)
        for part, name in (("decode", "decoding"), ("queue", "waiting"), ("model", "computing"))
    }
    return schemas.Milliseconds(**slowest, total=1000 * total)


def _coco(found: Sequence[Found], chosen: Filter, loaded: Loaded) -> schemas.CocoResponse:
    images: list[dict[str, int | str]] = []
    annotations: list[dict[str, Any]] = []
    for number, each in enumerate(found, 1):
        images.append({"id": number, "file_name": each.upload.name, "width": each.size[1], "height": each.size[0]})
        for row in chosen.of(each.detections).to_coco(number):
            area = row["bbox"][2] * row["bbox"][3]
            annotations.append({"id": len(annotations) + 1, **row, "area": area, "iscrowd": 0})
    return schemas.CocoResponse(images=images, annotations=annotations, categories=categories_of(loaded))


def _picture(service: Service, found: Found, chosen: Filter) -> bytes:
    return service.using(found.upload, lambda image: jpeg(chosen.of(found.detections).draw(image)))


def categories_of(loaded: Loaded) -> list[schemas.Category]:
    """Return the categories of a model."""
    known = loaded.detector.categories
    return [schemas.Category(id=id_, name=name) for id_, name in zip(known.ids, known.names, strict=True)]
