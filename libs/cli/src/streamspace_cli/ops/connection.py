"""Reaching NATS with an operator's credentials, and its errors in words."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from streamspace_cli.exits import CliError, ExitCode
from streamspace_common.bus import (
    ApiError,
    Bus,
    BusError,
    BusUnavailableError,
    PermissionDeniedError,
    Streams,
)
from streamspace_common.contracts.permissions import OPERATORS

_PATIENCE = 10.0
"""Seconds for the first connection."""

T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """Where NATS is and who we are there; what is left out is taken from the data folder."""

    url: str | None
    credentials: Path | None
    ca_file: Path | None
    data: Path
    """Of a StreamSpace that runs on this machine (`make up`)."""

    def found_url(self) -> str:
        """The server's address.

        Raises:
            CliError: none was given, and nothing has run here.
        """
        if self.url is not None:
            return self.url
        try:
            port = json.loads((self.data / "ports.json").read_text())["nats"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CliError(
                f"Where NATS is was not said, and no StreamSpace has run in {self.data}.",
                ExitCode.USAGE,
                hint="Give --nats-url and --nats-creds.",
            ) from error
        return f"nats://127.0.0.1:{port}"

    def found_credentials(self, role: str) -> Path | None:
        """The role's file; None where a server was named and no file.

        Raises:
            CliError: there is no such file.
        """
        path = self.credentials
        if path is None:
            if self.url is not None:
                return None
            path = self.data / "secrets" / f"{role}.creds"
        if not path.is_file():
            raise CliError(
                f"There is no credentials file {path}.",
                ExitCode.USAGE,
                hint=f"Give the file with the rights `{role}` with --nats-creds.",
            )
        return path


def with_streams(target: Target, role: str, work: Callable[[Streams], Awaitable[T]]) -> T:
    """Connect as `role` of `OPERATORS`, do the work, and close.

    Raises:
        CliError: NATS cannot be reached, refuses, or does not have what was asked for.
    """
    # The bus logs for services; here the command itself says what matters.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    url, credentials = target.found_url(), target.found_credentials(role)

    async def go() -> T:
        bus = await _connect(url, credentials, target.ca_file, role)
        try:
            return await work(Streams(bus))
        finally:
            await bus.close()

    try:
        return asyncio.run(go())
    except PermissionDeniedError as error:
        raise CliError(
            f"These credentials do not allow it: {error}.",
            ExitCode.NOT_ALLOWED,
            hint=f"It takes the rights `{role}`.",
        ) from error
    except ApiError as error:
        code = ExitCode.NOT_FOUND if error.is_missing else ExitCode.FAILED
        raise CliError(f"NATS refused: {error.description}.", code) from error
    except BusUnavailableError as error:
        raise CliError(f"NATS does not answer: {error}.", ExitCode.UNREACHABLE) from error
    except BusError as error:
        raise CliError(f"NATS refused: {error}.") from error


async def _connect(url: str, credentials: Path | None, ca_file: Path | None, role: str) -> Bus:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await Bus.connect(
                url,
                name=f"streamspace-cli/{role}",
                credentials=credentials,
                ca_file=ca_file,
                inbox=OPERATORS[role].inbox,
            )
    except TimeoutError as error:
        raise CliError(
            f"NATS at {url} cannot be reached, or does not take these credentials.",
            ExitCode.UNREACHABLE,
            hint="Check --nats-url and --nats-creds.",
        ) from error
    except (OSError, ValueError) as error:
        raise CliError(
            f"NATS at {url} cannot be reached: {error}.", ExitCode.UNREACHABLE
        ) from error
