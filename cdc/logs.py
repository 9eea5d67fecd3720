"""Logs on standard error: lines for people on a terminal, JSON elsewhere; secrets never.

Passwords inside URLs are masked wherever they turn up: in a message, a field or a traceback.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog

__all__ = ["configure", "redact"]

_PASSWORD = re.compile(r"(?P<head>[a-z][a-z0-9+.-]*://[^\s:/@'\"]*):[^\s/]+@", re.IGNORECASE)
_PAIR = re.compile(
    r"(?P<head>\b(?:password|passwd|sslpassword)\s*[=:]\s*)('[^']*'|[^\s,;&]+)", re.IGNORECASE
)


def redact(text: str) -> str:
    """Return `text` without the passwords of URLs and connection strings.

    >>> redact("connecting to postgresql://app:hunter2@db/shop")
    'connecting to postgresql://app:***@db/shop'
    """
    return _PAIR.sub(r"\g<head>***", _PASSWORD.sub(r"\g<head>:***@", text))


def _redacted(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redact(value)
        elif isinstance(value, BaseException):
            event[key] = redact(f"{type(value).__name__}: {value}")
    return event


def _json(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()


def configure(form: str = "auto", level: str = "info", **fields: str) -> None:
    """Set logging up for this process; `fields` ("unit", "pipeline") are in every line.

    `form` is "json", "console" or "auto": console on a terminal.
    """
    is_console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if is_console
        else structlog.processors.JSONRenderer(serializer=_json)
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**fields)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redacted,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(message)s")
