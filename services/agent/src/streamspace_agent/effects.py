"""A file of effects: what was done to each session here, by which replica, for which command.

Switched on by a setting, around any runtime. It answers, long after logs are gone and from
another source than the control plane's own history, what really happened on this cluster:
for an audit, and for the fault tests, whose checker compares it with what was asked for.

One JSON object a line. A line is one `write` to a file opened for appending, so a kill at
any instant leaves whole lines, and replicas on one machine may share the file; then the
order of the lines is the order of what they tell. Nothing is forced to the disk. The file
is opened anew for each line, so it may be moved away by whoever rotates it.

Each effect is told twice: that it was `begun`, and how it ended. An effect that was begun
and never ended belongs to a replica that was killed amid it. What a runtime does around the
agent's own end (`on_exit`) is not a command's effect and is not told.
"""

import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from pathlib import Path

from streamspace_agent.domain import Observed
from streamspace_agent.ports import (
    PassingFailure,
    PermanentFailure,
    ReportPhase,
    Runtime,
    Superseded,
)
from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.clusters import Capacity
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Phase, SessionSpec
from streamspace_common.relay.pump import Leg
from streamspace_common.runtime.clock import Clock
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)


class Effect(StrEnum):
    """What becomes of a session."""

    RUNNING = "running"
    HIBERNATED = "hibernated"
    ABSENT = "absent"
    DEAD = "dead"
    """Its desktop ended by itself; told by every replica that sees it."""


class Step(StrEnum):
    """How far an effect has come."""

    BEGUN = "begun"
    DONE = "done"
    FOUND = "found"
    """It was so already; nothing was brought up."""
    SUPERSEDED = "superseded"
    """A newer generation was there: nothing was done, or it was undone."""
    FAILED = "failed"
    CUT_SHORT = "cut-short"
    """Cancelled and undone: by a newer command, a deadline, or the agent's end."""


class EffectsFileError(Exception):
    """The file cannot be written to; the message says why."""


class EffectsFile:
    """Appends lines; a file that cannot be written to is told once, and stops no session."""

    def __init__(self, path: Path, instance: str, clock: Clock) -> None:
        self._path = path
        self._instance = instance
        self._clock = clock
        self._failing = False

    def open(self) -> None:
        """Make file and folder, so that a wrong path is found out at the start.

        Raises:
            EffectsFileError: it cannot be written to.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            os.close(self._handle())
        except OSError as error:
            raise EffectsFileError(f"The effects file cannot be written to: {error}.") from error

    def append(
        self, session: SessionId, generation: int, effect: Effect, step: Step, work: int
    ) -> None:
        """Add a line; `work` joins what one replica tells of one effect."""
        line = {
            "time": self._clock.now().isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "instance": self._instance,
            "work": work,
            "session": session,
            "generation": generation,
            "effect": effect,
            "step": step,
        }
        try:
            handle = self._handle()
            try:
                os.write(handle, json.dumps(line).encode() + b"\n")
            finally:
                os.close(handle)
        except OSError as error:
            if not self._failing:
                log.error("effect not written down", path=str(self._path), error=str(error))  # noqa: TRY400
            self._failing = True
        else:
            self._failing = False

    def _handle(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


@dataclass
class _Ending:
    step: Step = Step.DONE


class Recorded:
    """A `Runtime` that does what another one does, and writes it down."""

    def __init__(self, runtime: Runtime, file: EffectsFile) -> None:
        self._runtime = runtime
        self._file = file
        self._works = count(1)

    @property
    def kind(self) -> RuntimeKind:
        return self._runtime.kind

    async def open(self) -> None:
        self._file.open()
        await self._runtime.open()

    async def close(self, *, stop_sessions: bool) -> None:
        await self._runtime.close(stop_sessions=stop_sessions)

    async def observe(self, session: SessionId) -> Observed | None:
        return await self._runtime.observe(session)

    async def ensure_running(
        self, spec: SessionSpec, generation: int, report_phase: ReportPhase
    ) -> None:
        with self._telling(spec.session_id, generation, Effect.RUNNING) as ending:
            ending.step = Step.FOUND

            def reached(
                phase: Phase, message: str | None = None, /, *, ongoing: bool = False
            ) -> None:
                if phase is Phase.READY and not ongoing:
                    ending.step = Step.DONE
                report_phase(phase, message, ongoing=ongoing)

            await self._runtime.ensure_running(spec, generation, reached)

    async def ensure_hibernated(self, spec: SessionSpec, generation: int) -> None:
        with self._telling(spec.session_id, generation, Effect.HIBERNATED):
            await self._runtime.ensure_hibernated(spec, generation)

    async def ensure_absent(
        self, session: SessionId, generation: int, *, delete_home: bool
    ) -> None:
        with self._telling(session, generation, Effect.ABSENT):
            await self._runtime.ensure_absent(session, generation, delete_home=delete_home)

    async def watch(self) -> AsyncIterator[Observed]:
        async for observed in self._runtime.watch():
            if observed.death is not None:
                self._file.append(
                    observed.session_id,
                    observed.generation,
                    Effect.DEAD,
                    Step.FOUND,
                    next(self._works),
                )
            yield observed

    async def inventory(self) -> tuple[Observed, ...]:
        return await self._runtime.inventory()

    async def dial(self, session: SessionId, port: int) -> Leg:
        return await self._runtime.dial(session, port)

    async def capacity(self) -> Capacity:
        return await self._runtime.capacity()

    async def trouble(self) -> str | None:
        return await self._runtime.trouble()

    @contextmanager
    def _telling(self, session: SessionId, generation: int, effect: Effect) -> Iterator[_Ending]:
        work, ending = next(self._works), _Ending()
        self._file.append(session, generation, effect, Step.BEGUN, work)
        try:
            yield ending
        except Superseded:
            ending.step = Step.SUPERSEDED
            raise
        except (PassingFailure, PermanentFailure):
            ending.step = Step.FAILED
            raise
        except BaseException:
            ending.step = Step.CUT_SHORT
            raise
        finally:
            self._file.append(session, generation, effect, ending.step, work)
