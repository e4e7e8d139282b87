"""Reads git catalogs by a process each, which is killed at its deadline."""

import asyncio
import base64
import contextlib
import hashlib
import os
import shutil
import signal
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Final

from pydantic import SecretStr, ValidationError

from streamspace_catalog_sync.addresses import Address
from streamspace_catalog_sync.domain import (
    CatalogRefusedError,
    CatalogUnreachableError,
    Snapshot,
    SourceError,
    SourceFile,
    Unchanged,
)
from streamspace_catalog_sync.source.limits import Limits, ReadReply, ReadRequest
from streamspace_common.contracts.ids import CatalogId
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

_READER: Final = (sys.executable, "-m", "streamspace_catalog_sync.source.reader")
# All that a reader needs of our environment; above all not our settings and secrets.
_ENVIRONMENT: Final = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
)
_ERRORS: Final[dict[str, type[SourceError]]] = {
    "unreachable": CatalogUnreachableError,
    "refused": CatalogRefusedError,
    "invalid": SourceError,
}


class GitSource:
    """Git repositories; copies of remote ones are kept under `folder`, which may be lost."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: Limits,
        private_addresses: bool = True,
        ssh_key: Path | None = None,
    ) -> None:
        self._folder = folder
        self._limits = limits
        self._private_addresses = private_addresses
        self._ssh_key = ssh_key

    async def read(
        self,
        catalog: CatalogId,
        address: Address,
        *,
        branch: str | None,
        token: SecretStr | None,
        known_commit: str | None,
    ) -> Snapshot | Unchanged:
        """All YAML files at the newest commit, unless that is `known_commit`.

        Raises:
            CatalogUnreachableError: no answer, or not within the deadline.
            CatalogRefusedError: the server wants other credentials.
            SourceError: there is no such repository or branch, or it is too large.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        request = ReadRequest(
            transport=address.transport.value,
            url=address.url,
            branch=branch,
            token=token,
            known_commit=known_commit,
            cache=str(self._folder / self._copy_name(catalog, address)),
            private_addresses=self._private_addresses,
            ssh_key=str(self._ssh_key) if self._ssh_key else None,
            limits=self._limits,
        )
        reply = await self._ask_reader(request)
        if reply.error is not None:
            raise _ERRORS[reply.error](reply.message)
        if reply.commit is None:
            raise SourceError("The reader gave no commit.")
        if reply.unchanged:
            return Unchanged(reply.commit)
        files = (
            SourceFile(file.path, base64.b64decode(file.content), file.problem)
            for file in reply.files
        )
        return Snapshot(reply.commit, tuple(files))

    async def forget_all_but(self, catalogs: Collection[tuple[CatalogId, Address]]) -> None:
        """Delete the copies of catalogs that are no longer there."""
        wanted = {self._copy_name(catalog, address) for catalog, address in catalogs}
        if not self._folder.is_dir():
            return
        for folder in self._folder.iterdir():
            if folder.suffix == ".git" and folder.name not in wanted:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    @staticmethod
    def _copy_name(catalog: CatalogId, address: Address) -> str:
        # By address too: another repository under the same name is another copy.
        return f"{catalog}-{hashlib.sha256(address.url.encode()).hexdigest()[:12]}.git"

    async def _ask_reader(self, request: ReadRequest) -> ReadReply:
        process = await asyncio.create_subprocess_exec(
            *_READER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._limits.deadline.total_seconds()):
                answer, complaint = await process.communicate(request.model_dump_json().encode())
        except TimeoutError as error:
            raise CatalogUnreachableError(
                f"{request.url} did not answer completely within "
                f"{self._limits.deadline.total_seconds():g} seconds. "
                "Check the address, and whether the server is up."
            ) from error
        finally:
            await _end(process)
        try:
            return ReadReply.model_validate_json(answer)
        except ValidationError as error:
            log.warning(
                "catalog reader died",
                url=request.url,
                status=process.returncode,
                complaint=complaint.decode("utf-8", "replace")[-2000:],
            )
            raise SourceError("The repository cannot be read; the log says more.") from error


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the reader and what it started (ssh), if it is still there."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())
