"""Log of the server: a line of text or JSON per event."""

import json
import logging
import sys
import time
from typing import Literal

from conditional_detr.text import printable

LogFormat = Literal["auto", "text", "json"]
_OWN, _UVICORN = "conditional_detr", "uvicorn"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {"time": _time(record), "level": record.levelname.lower(), "message": record.getMessage()}
        fields |= getattr(record, "fields", {})
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        request = f"  {fields['request_id']}" if "request_id" in fields else ""
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{_time(record)} {record.levelname.lower():7} {printable(record.getMessage())}{request}{trace}"


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03}Z"


def log_to_standard_error(form: LogFormat) -> None:
    """Write the log to standard error. form: "auto" is text on a terminal and JSON elsewhere."""
    text = sys.stderr.isatty() if form == "auto" else form == "text"
    handler = logging.StreamHandler()
    handler.setFormatter(_Text() if text else _Json())
    for name, level in ((_OWN, logging.INFO), (_UVICORN, logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
