"""Writes the OpenAPI document: `python -m streamspace_gateway.openapi [--check] FILE`."""

import argparse
import json
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from streamspace_common.contracts.identity import Principal
from streamspace_common.contracts.requests import Method
from streamspace_gateway.app import create_app
from streamspace_gateway.deps import State
from streamspace_gateway.feed_event import FeedEvent
from streamspace_gateway.ports import Reply, Request
from streamspace_gateway.rates import RateLimiter
from streamspace_gateway.settings import GatewaySettings


class _Nowhere:
    """Stands where connections would: the document is made without any."""

    position = 0

    async def call(
        self, method: Method[Request, Reply], request: Request, *, timeout: float = 5.0
    ) -> Reply:
        raise NotImplementedError

    async def call_unread(
        self, method: Method[Request, Reply], request: Request, *, timeout: float = 5.0
    ) -> bytes:
        raise NotImplementedError

    async def follow(
        self, wanted: Callable[[FeedEvent], bool], *, after: int
    ) -> AsyncGenerator[FeedEvent | None]:
        raise NotImplementedError
        yield None

    async def verify(self, token: str) -> Principal:
        raise NotImplementedError


def document() -> str:
    """The OpenAPI 3.1 document as stable, readable JSON."""
    nowhere = _Nowhere()
    app = create_app(
        State(
            services=nowhere,
            feed=nowhere,
            verifier=nowhere,
            rates=RateLimiter({}),
            settings=GatewaySettings(web_root=None),
        )
    )
    return json.dumps(app.openapi(), indent=2, sort_keys=True) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--check", action="store_true", help="fail where the file is not current")
    arguments = parser.parse_args()
    wanted = document()
    if not arguments.check:
        arguments.file.write_text(wanted)
    elif not arguments.file.is_file() or arguments.file.read_text() != wanted:
        sys.exit(f"{arguments.file} is not current: run `make openapi`.")


if __name__ == "__main__":
    main()
