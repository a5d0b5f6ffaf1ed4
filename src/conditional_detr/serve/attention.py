"""``/v1/attention``: what the heads of a decoder layer look at."""

import base64
from functools import partial

import numpy as np
from fastapi import FastAPI, Request
from starlette.responses import Response

from conditional_detr.explain.attention_maps import explain
from conditional_detr.serve import schemas
from conditional_detr.serve.answering import ERRORS, answered, json_response, request_body
from conditional_detr.serve.refusals import invalid
from conditional_detr.serve.requests import read_request
from conditional_detr.serve.service import Loaded, Service, Upload


def add_attention(app: FastAPI, service: Service) -> None:
    """Add the route."""

    @app.post(
        "/v1/attention",
        tags=["explanation"],
        summary="What the heads of a decoder layer look at",
        response_model=schemas.AttentionResponse,
        responses=ERRORS,
        openapi_extra=request_body(schemas.AttentionOptions),
    )
    async def attention(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Send an image as a form or as the body. The answer holds the attention maps of its most confident queries."""
        loaded = service.loaded
        uploads, options = await read_request(request, service, schemas.AttentionOptions)
        if len(uploads) != 1:
            raise invalid(f"attention is of one image, and the request has {len(uploads)}; send one")
        upload = uploads[0]
        work = partial(_attention, service, loaded, upload, options)
        answer = await answered(request, service.call(work, request.state.deadline))
        return await service.in_thread(lambda: json_response(answer))


def _attention(
    service: Service, loaded: Loaded, upload: Upload, options: schemas.AttentionOptions
) -> schemas.AttentionResponse:
    explained, (width, height) = service.using(
        upload, lambda image: (explain(loaded.detector, image, options.layer, top=options.top), image.size)
    )
    maps = explained.maps
    heads, rows, columns = maps.combined.shape[1:]
    queries: list[schemas.QueryAttention] = []
    for i, (query, each) in enumerate(zip(explained.queries.tolist(), explained.detections, strict=True)):
        combined, spatial, content = (_scaled(part[i].numpy()) for part in (maps.combined, maps.spatial, maps.content))
        queries.append(
            schemas.QueryAttention(
                query=query,
                box=each.box,
                score=each.score,
                category_id=each.label,
                category_name=each.name,
                combined=combined,
                spatial=spatial,
                content=content,
            )
        )
    points = explained.reference_points
    return schemas.AttentionResponse(
        width=width,
        height=height,
        layer=explained.layer,
        layers=loaded.detector.record.architecture.decoder_layers,
        heads=heads,
        rows=rows,
        columns=columns,
        cells=(explained.rows, explained.columns),
        queries=queries,
        reference_points=None if points is None else [(x, y) for x, y in points.tolist()],
    )


def _scaled(weights: np.ndarray) -> str:
    """Return attention weights ``[heads, rows, columns]`` as bytes in base64, 255 for the highest of each head."""
    highest = weights.max((1, 2), keepdims=True)
    return base64.b64encode(np.rint(255 * weights / np.maximum(highest, 1e-30)).astype(np.uint8).tobytes()).decode()
