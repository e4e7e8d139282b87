"""An agent as a process, with an enrolment; and what it says."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streamspace_common.contracts.clusters import Enrolment


class Agent:
    """One `streamspace-agent` of the null runtime, as a process.

    Args:
        folder: for its enrolment and its state; mode 0700.
        prefix: a command that runs it, for instance in a network of its own.
        settings: more of its environment.
    """

    def __init__(self, folder: Path, *, prefix: Sequence[str] = (), **settings: str) -> None:
        self.folder = folder
        self._prefix = prefix
        self.enrolment = folder / "enrolment.json"
        self.settings = settings
        self.output = b""
        self.inner: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    def give(self, enrolment: Enrolment) -> None:
        self.enrolment.write_bytes(enrolment.to_json())

    async def start(self) -> None:
        self.output = b""
        self.inner = await asyncio.create_subprocess_exec(
            *self._prefix, str(Path(sys.executable).with_name("streamspace-agent")),
            env={
                "PATH": os.environ["PATH"],
                "STREAMSPACE_AGENT_ENROLMENT_FILE": str(self.enrolment),
                "STREAMSPACE_AGENT_RUNTIME": "null",
                "STREAMSPACE_AGENT_STATE_DIR": str(self.folder / "state"),
                **self.settings,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.inner is not None
        assert self.inner.stdout is not None
        while chunk := await self.inner.stdout.read(65536):
            self.output += chunk

    @property
    def lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self.output.decode().splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return found

    def said(self, words: str) -> int:
        return sum(words in line["event"] for line in self.lines)

    async def ready(self) -> bool:
        found = re.search(rb'"url": "(http://[^"]+)"', self.output)
        if found is None:
            return False

        def ask() -> bool:
            try:
                with urllib.request.urlopen(f"{found[1].decode()}/readyz") as answer:
                    return bool(answer.status == 200)
            except (urllib.error.HTTPError, OSError):
                return False

        return await asyncio.to_thread(ask)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.inner is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.inner.send_signal(number)
        await self.inner.wait()
        assert self._reading is not None
        await self._reading
        self.inner = None
