"""One way to log: JSON lines on stderr, for our own code and for every library.

Lines carry the service, the level, a UTC timestamp and whatever ids are bound
where the code runs (`trace_id`, `session_id`, `user_id`, `request_id`). A value
whose key smells of a secret is replaced before anything is written, and so are
passwords inside addresses.
"""

import logging
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

import structlog
from structlog.typing import FilteringBoundLogger, Processor

REDACTED: Final = "[redacted]"
_SECRET_KEY = re.compile(
    r"passw|secret|token|ticket|authoriz|credential|cookie|api_?key|private_?key|seed",
    re.IGNORECASE,
)
_PASSWORD_IN_URL = re.compile(r"(\w+://[^/\s:@]*):[^/\s@]+@")
_QUIET_PATHS: Final = ("/healthz", "/readyz", "/metrics")
_NOISY: Final = {"asyncio": "WARNING", "alembic": "WARNING", "httpx": "WARNING"}


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger; usable at import, before `configure`."""
    logger: FilteringBoundLogger = structlog.get_logger(component=name)
    return logger


@contextmanager
def bind(**ids: str | int | None) -> Iterator[None]:
    """Put ids on every line logged inside the block; None is left out."""
    known = {key: value for key, value in ids.items() if value is not None}
    with structlog.contextvars.bound_contextvars(**known):
        yield


def configure(service: str, level: str, format: str) -> None:  # noqa: A002 - the setting's name
    """Set up structlog and the standard library's logging for this process.

    Args:
        service: stands on every line.
        level: lowest level written, for instance `INFO`.
        format: `json` or `console`.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _service_adder(service),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer(default=str)
        if format == "json"
        # Its own way with tracebacks shows every variable on the way, secrets too.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    _configure_standard_library(level, shared, renderer)


def _configure_standard_library(level: str, shared: list[Processor], renderer: Processor) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_without_probes)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name, quiet in _NOISY.items():
        logging.getLogger(name).setLevel(quiet)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers = []
        library.propagate = True


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Replace values of secret-looking keys, at any depth, and passwords inside addresses."""
    return {key: _clean(key, value) for key, value in event.items()}


def _clean(key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if key != "event" and _SECRET_KEY.search(key):
        return REDACTED
    if isinstance(value, str):
        return _PASSWORD_IN_URL.sub(rf"\1:{REDACTED}@", value) if "://" in value else value
    if isinstance(value, Mapping):
        return {inner: _clean(str(inner), item) for inner, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean("", item) for item in value]
    return value


def _service_adder(service: str) -> Processor:
    def add_service(
        _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    return add_service


def _logger_name(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    record = event.get("_record")
    if isinstance(record, logging.LogRecord):
        event["component"] = record.name
    return event


def _without_probes(record: logging.LogRecord) -> bool:
    """Drop the access lines of probes and scrapes: several a second that say nothing."""
    if record.name != "uvicorn.access" or not isinstance(record.args, tuple):
        return True
    path = str(record.args[2]) if len(record.args) > 2 else ""
    return path.partition("?")[0] not in _QUIET_PATHS
