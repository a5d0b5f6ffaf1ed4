"""The HTTP interface of a service: its application, errors, and the routes about server and model."""

from fastapi import FastAPI, Request
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from conditional_detr import __version__
from conditional_detr.serve import schemas
from conditional_detr.serve.answering import ERRORS
from conditional_detr.serve.attention import add_attention
from conditional_detr.serve.detection import add_detection, categories_of
from conditional_detr.serve.documentation import describe
from conditional_detr.serve.guard import Guard, problem
from conditional_detr.serve.inference_protocol import add_inference_protocol
from conditional_detr.serve.metrics import CONTENT_TYPE
from conditional_detr.serve.refusals import Refusal, fault
from conditional_detr.serve.service import Service
from conditional_detr.serve.web_page import Samples, add_page


def create_app(service: Service) -> Guard:
    """Return the ASGI application of a service."""
    app = FastAPIOffline(
        title=f"conditional-detr: {service.settings.name}",
        version=__version__,
        docs_url="/docs",
        redoc_url=None,
        static_url="/docs/files",
        openapi_url="/openapi.json",
        description="Find objects in images with a Conditional DETR model.",
    )
    app.state.service = service
    _add_errors(app)
    _add_health(app, service)
    _add_model(app, service)
    add_detection(app, service)
    add_attention(app, service)
    add_inference_protocol(app, service, ERRORS)
    describe(app)
    if service.settings.page:
        add_page(app, Samples(service.settings.samples))
    return Guard(app, service)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> Response:  # pyright: ignore[reportUnusedFunction]
        return problem(refusal, request.state.request_id)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:  # pyright: ignore[reportUnusedFunction]
        return problem(fault(request.state.request_id), request.state.request_id)  # the guard logs the error

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:  # pyright: ignore[reportUnusedFunction]
        detail = f"{error.detail}".rstrip(".")
        if error.status_code == 404:
            detail = f"{request.url.path[:200]} does not exist here; /docs lists what does"
        if error.status_code == 405:
            detail = f"{request.url.path[:200]} does not take {request.method}; /docs lists what it takes"
        headers = dict(error.headers or {})
        refusal = Refusal(error.status_code, f"http_{error.status_code}", detail, headers)
        return problem(refusal, request.state.request_id)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/livez", tags=["health"], summary="Whether the process works")
    def live() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"], summary="Whether requests are accepted", responses={503: {}})
    def ready() -> Response:  # pyright: ignore[reportUnusedFunction]
        if service.stopping:
            return JSONResponse({"status": "shutting down"}, 503)
        return JSONResponse(
            {"status": "queue full"} if service.full else {"status": "ok"}, 503 if service.full else 200
        )

    @app.get("/metrics", tags=["health"], summary="Metrics in Prometheus's text format")
    def metrics() -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _add_model(app: FastAPI, service: Service) -> None:
    @app.get("/v1/model", tags=["model"], summary="What is served")
    def model() -> schemas.ModelResponse:  # pyright: ignore[reportUnusedFunction]
        loaded = service.loaded
        record = loaded.detector.record
        described = record.to_dict()
        return schemas.ModelResponse(
            name=service.settings.name,
            version=loaded.version,
            runtime=loaded.detector.runtime,
            categories=categories_of(loaded),
            architecture=described["architecture"],
            input_size=described["input_size"],
            threshold=service.settings.threshold,
            thresholds=record.thresholds is not None,
            attention=loaded.detector.exported_file is None,
            layers=record.architecture.decoder_layers,
            loaded_at=loaded.since,
        )
