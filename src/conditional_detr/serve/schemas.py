"""Requests and answers of ``/v1`` as JSON."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Threshold = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | Literal["auto"]
Format = Literal["detections", "coco", "picture"]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Options(_Request):
    """What a request may ask for besides its images."""

    threshold: Threshold | None = Field(
        default=None,
        description='minimum score, in 0..1; "auto": the best one of each category; default: the server\'s',
    )
    top: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="maximum number of objects in an image"
    )
    classes: Annotated[list[str | int], Field(max_length=10_000)] | None = Field(
        default=None, description="names or ids of the categories to be found; default: all"
    )
    format: Format = Field(
        default="detections", description="objects per image, COCO data, or (for one image) a JPEG picture with boxes"
    )


class ImageSource(_Request):
    """An image: the content of its file in base64, or a URL on a host that the server allows."""

    base64: str | None = Field(default=None, description="content of an image file, in base64")
    url: Annotated[str, Field(max_length=4096)] | None = Field(default=None, description="where to fetch it from")
    name: Annotated[str, Field(max_length=1024)] | None = Field(default=None, description="name in the answer")


class DetectRequest(Options):
    """Images, and what is asked about them."""

    images: Annotated[list[ImageSource], Field(min_length=1)]


class AttentionOptions(_Request):
    """Which attention is asked for."""

    layer: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="decoder layer, from 1; default: the last"
    )
    top: Annotated[int, Field(ge=1, le=50)] = Field(default=10, description="number of most confident queries")


class DetectedObject(BaseModel):
    """An object. box: x0, y0, x1, y1 in pixels of the image, after its EXIF rotation."""

    box: tuple[float, float, float, float]
    score: float
    category_id: int
    category_name: str


class ImageResult(BaseModel):
    """Objects of an image, most confident first. best_score: the highest score, also when it is below the threshold."""

    name: str
    width: int
    height: int
    best_score: float
    objects: list[DetectedObject]


class Milliseconds(BaseModel):
    """Time of a request. decode, queue, model: of its slowest image."""

    decode: float
    queue: float
    model: float
    total: float


class ModelVersion(BaseModel):
    name: str
    version: str


class DetectResponse(BaseModel):
    """Answer of ``/v1/detect``."""

    model: ModelVersion
    request_id: str
    images: list[ImageResult]
    milliseconds: Milliseconds


class Category(BaseModel):
    id: int
    name: str


class CocoResponse(BaseModel):
    """Answer of ``/v1/detect`` as COCO data; ``bbox`` is x, y, width, height in pixels."""

    images: list[dict[str, int | str]]
    annotations: list[dict[str, int | float | list[float]]]
    categories: list[Category]


class ModelResponse(BaseModel):
    """What is served. attention: whether ``/v1/attention`` can answer, which an exported model can't."""

    name: str
    version: str
    runtime: str
    categories: list[Category]
    architecture: dict[str, object]
    input_size: dict[str, object]
    threshold: float
    thresholds: bool = Field(description='whether "auto" is a threshold that this model has')
    attention: bool
    layers: int
    loaded_at: float = Field(description="Unix time")


class QueryAttention(BaseModel):
    """A query with what every head of the layer looks at.

    combined, spatial, content: in base64, a byte per head, row and column, scaled so that 255 is the highest weight of the head.
    """

    query: int
    box: tuple[float, float, float, float]
    score: float
    category_id: int
    category_name: str
    combined: str
    spatial: str
    content: str


class AttentionResponse(BaseModel):
    """Answer of ``/v1/attention``.

    cells: (rows, columns) that the image covers; fractional where it was padded. reference_points: (x, y) of all queries in pixels; None for plain DETR.
    """

    width: int
    height: int
    layer: int
    layers: int
    heads: int
    rows: int
    columns: int
    cells: tuple[float, float]
    queries: list[QueryAttention]
    reference_points: list[tuple[float, float]] | None


class Problem(BaseModel):
    """Why a request was not answered."""

    code: str
    message: str
    request_id: str


class ErrorResponse(BaseModel):
    error: Problem
