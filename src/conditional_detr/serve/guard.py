"""What every request passes, before and after its route: an id, the API key, limits, metrics, the log."""

import asyncio
import hmac
import logging
import re
import time
import uuid
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from conditional_detr.serve.refusals import Refusal, fault, queue_full, stopping, too_large
from conditional_detr.serve.service import Service

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_HEALTH = ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready")
_ALWAYS = (*_HEALTH, "/metrics")  # answered while the server stops
_OPEN = (*_HEALTH, "/", "/docs", "/openapi.json")  # need no key; the page asks for it
_FILES = ("/page/", "/docs/")  # beginnings of paths that need none


def problem(refusal: Refusal, request_id: str) -> JSONResponse:
    """Return the answer to a request that is refused."""
    content = {"error": {"code": refusal.code, "message": refusal.message, "request_id": request_id}}
    return JSONResponse(content, refusal.status, refusal.headers)


class Guard:
    """ASGI application around the routes.

    A request's state holds ``request_id`` and ``deadline``, by ``time.monotonic``.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service
        self.active = 0
        # More requests than this are uploading or waiting only if clients ignore the answer 429.
        self.most = 4 * service.settings.queue + 32

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = _Request(self, scope, receive, send)
        self.active += 1
        self.service.metrics.in_flight.inc()
        try:
            await request.answer()
        finally:
            self.active -= 1
            self.service.metrics.in_flight.dec()


class _Request:
    """One request."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard, self.service, self.settings = guard, guard.service, guard.service.settings
        self.scope, self._receive, self._send = scope, receive, send
        self.headers = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        self.start = time.monotonic()
        self.deadline = self.start + self.settings.seconds
        self.received = 0
        self.status = 0
        self.body_read = False
        scope.setdefault("state", {}).update(request_id=self.id, deadline=self.deadline)

    async def answer(self) -> None:
        try:
            refusal = self._refusal()
            if refusal is None:
                await self.guard.app(self.scope, self.receive, self.send)
            else:
                await problem(refusal, self.id)(self.scope, self.receive, self.send)
        except Exception:
            logger.exception(f"request {self.id} failed", extra={"fields": {"request_id": self.id}})
            if not self.status:
                await problem(fault(self.id), self.id)(self.scope, self.receive, self.send)
        finally:
            self._note()

    def _refusal(self) -> Refusal | None:
        """Return why this request is refused before it is read, if so."""
        path = self.scope["path"]
        if self.service.stopping and path not in _ALWAYS:
            return stopping()
        keys = self.settings.keys
        if keys and path not in _OPEN and not path.startswith(_FILES) and not self._has_key():
            message = "give an API key of this server, as the header Authorization: Bearer KEY"
            return Refusal(401, "no_key", message, {"WWW-Authenticate": "Bearer"})
        if self.scope["method"] != "POST":
            return None
        if self.service.full or self.guard.active > self.guard.most:
            return queue_full(self.service.seconds_to_room)
        length = self.headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > self.settings.max_bytes):
            return self._too_large()
        return None

    def _has_key(self) -> bool:
        scheme, _, given = self.headers.get("authorization", "").partition(" ")
        given = given if scheme.lower() == "bearer" else self.headers.get("x-api-key", "")
        matches = [hmac.compare_digest(given.encode(), key.encode()) for key in self.settings.keys]
        return any(matches)  # all are compared, so that the time tells nothing

    def _too_large(self) -> Refusal:
        return too_large(f"the request is larger than {self.settings.max_bytes} bytes; send fewer or smaller images")

    async def receive(self) -> Message:
        """Receive a part of the body, within the limits on bytes and time."""
        try:
            left = None if self.body_read else max(0.0, self.deadline - time.monotonic())
            message = await asyncio.wait_for(self._receive(), left)
        except (asyncio.TimeoutError, TimeoutError):
            raise Refusal(
                408,
                "upload_too_slow",
                f"the request did not arrive within {self.settings.seconds:g} s; send it again",
                {"Connection": "close"},
            ) from None
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self.body_read = not message.get("more_body", False)
            if self.received > self.settings.max_bytes:
                raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.id
            headers["X-Content-Type-Options"] = "nosniff"
        await self._send(message)

    def _note(self) -> None:
        seconds = time.monotonic() - self.start
        route: Any = self.scope.get("route")
        name = getattr(route, "path", "") or "other"  # not the path, of which clients may invent any number
        self.service.metrics.requests.labels(name, str(self.status or 499)).inc()
        self.service.metrics.seconds.labels(name).observe(seconds)
        if self.scope["path"] in _ALWAYS and self.status < 400:
            return
        fields = {
            "request_id": self.id,
            "method": self.scope["method"],
            "path": self.scope["path"][:200],
            "status": self.status or 499,
            "milliseconds": round(1000 * seconds, 1),
            "bytes": self.received,
            **{key: self.scope["state"][key] for key in ("images", "objects") if key in self.scope["state"]},
        }
        text = f"{fields['method']} {fields['path']} {fields['status']} {fields['milliseconds']:g} ms"
        logger.info(text, extra={"fields": fields})
