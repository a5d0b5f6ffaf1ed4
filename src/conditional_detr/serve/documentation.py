"""The OpenAPI description, which ``/docs`` shows. The page works without the internet."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from conditional_detr.serve.inference_protocol import InferRequest
from conditional_detr.serve.schemas import DetectRequest


def describe(app: FastAPI) -> None:
    """Add the bodies that routes read themselves to the description of an application."""

    def description() -> dict[str, Any]:
        if not app.openapi_schema:
            found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            for kind in (DetectRequest, InferRequest):
                schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
                found["components"]["schemas"] |= {**schema.pop("$defs"), kind.__name__: schema}
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = description  # as FastAPI's documentation extends it
