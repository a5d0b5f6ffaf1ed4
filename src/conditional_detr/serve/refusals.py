"""Why a request is not answered: HTTP statuses with one sentence each."""

import math


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """A request that is refused. code: a word for programs. message: one sentence with the remedy. headers: added to the answer."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = headers or {}


def invalid(message: str) -> Refusal:
    """Return the refusal of a request whose content can't be used."""
    return Refusal(422, "invalid", message)


def too_large(message: str) -> Refusal:
    return Refusal(413, "too_large", message)


def queue_full(seconds: float) -> Refusal:
    """Return the refusal of a request that found the queue full. seconds: after how many to try again."""
    wait = math.ceil(seconds)
    message = f"the queue is full; try again in {wait} s"
    return Refusal(429, "queue_full", message, {"Retry-After": str(wait)})


def too_slow(seconds: float) -> Refusal:
    message = f"the answer took more than {seconds:g} s; try again later, or with fewer images"
    return Refusal(503, "too_slow", message, {"Retry-After": "1"})


def stopping() -> Refusal:
    message = "the server is shutting down; send the request to another one"
    return Refusal(503, "stopping", message, {"Retry-After": "5", "Connection": "close"})


def fault(request_id: str) -> Refusal:
    """Return the answer where the server failed, which says nothing of the reason."""
    return Refusal(500, "internal_error", f"the server failed; its log says more under request {request_id}")
