"""Await the work of a request, and describe to OpenAPI what routes take and answer."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive

from conditional_detr.errors import InputError
from conditional_detr.serve import schemas
from conditional_detr.serve.batcher import Expired, QueueFull
from conditional_detr.serve.refusals import Refusal, invalid, queue_full, too_slow

Result = TypeVar("Result")

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorResponse, "description": text}
    for status, text in {
        400: "The request is damaged",
        401: "No API key",
        403: "A URL on a host that is not allowed",
        408: "The request arrived too slowly",
        413: "Too large",
        415: "A content type that can't be read",
        422: "Not an image, or an invalid field",
        429: "The queue is full; Retry-After says when to try again",
        500: "A fault of the server; the log says more under the request id",
        503: "The server is shutting down, or the time of the request is over",
    }.items()
}


async def answered(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Await the work of a request within its time. It is given up when the time is over or the client has gone.

    Raises ``Refusal`` for what the work could not do.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request.receive))
    try:
        left = max(0.0, request.state.deadline - time.monotonic())
        await asyncio.wait({task, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise Refusal(499, "client_gone", "the client has closed the connection")
        raise Expired
    except QueueFull as full:
        raise queue_full(full.seconds) from full
    except Expired as expired:
        raise too_slow(request.app.state.service.settings.seconds) from expired
    except InputError as error:
        raise invalid(str(error)) from error
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def json_response(answer: BaseModel) -> Response:
    """Return an answer as JSON."""
    return Response(answer.model_dump_json(), media_type="application/json")


def request_body(form: type[BaseModel], json: type[BaseModel] | None = None) -> dict[str, Any]:
    """Return the OpenAPI description of a request body that FastAPI does not read itself."""
    fields = form.model_json_schema()
    binary = {"type": "string", "format": "binary"}
    form_schema = {
        "type": "object",
        "properties": {"image": {"type": "array", "items": binary, "minItems": 1}, **fields["properties"]},
        "required": ["image"],
        "additionalProperties": False,
    }
    content: dict[str, Any] = {"multipart/form-data": {"schema": form_schema}, "image/*": {"schema": binary}}
    if json is not None:
        content["application/json"] = {"schema": {"$ref": f"#/components/schemas/{json.__name__}"}}
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in fields["properties"].items()
    ]
    return {"requestBody": {"required": True, "content": content}, "parameters": parameters}
