"""An agent's own credential on the bus: asked for with the enrolment, renewed before its end.

The agent makes a key when it starts and asks auth, with the enrolment's credential, for a
token that makes this key a user of its cluster for a while. After two thirds of that while
it asks again and shows the newer token to the bus. So what lies in the cluster's enrolment
can do nothing but ask, and what does the work ends by itself.

Nothing here gives up. While auth is away, the token in hand is used to its end; without one
the agent waits. When the enrolment is refused, somebody replaced or revoked it: the agent
says so and looks at it again from time to time, so that a new one in its place is taken up.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from streamspace_agent.enrolment import ReadEnrolment
from streamspace_common.bus import CredentialRefusedError, Identity
from streamspace_common.bus.errors import BusError
from streamspace_common.contracts.clusters import Enrolment
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import AgentCredential
from streamspace_common.runtime.clock import Clock
from streamspace_common.runtime.logging import get_logger
from streamspace_common.runtime.supervisor import FatalError

log = get_logger(__name__)

DUE_AFTER = 2 / 3
"""Share of a credential's life after which the next one is asked for."""
JITTER = 0.05
"""Share of it by which replicas differ, so that they do not ask all at once."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds between two tries to get one."""
REMIND_EVERY = 60.0
"""Seconds between two log lines that say the same."""

Ask = Callable[[Enrolment, str], Awaitable[AgentCredential]]
"""Asks auth, as the enrolment, for a token for a public key.

Raises BusError or ProblemError.
"""
Show = Callable[[], Awaitable[None]]
"""Has the bus look at the newest token."""


class Keeping(Protocol):
    """Remembers a credential from one start to the next."""

    def load(self) -> tuple[Identity, float] | None:
        """One that is still good, and the seconds it has left."""
        ...

    def save(self, identity: Identity, seconds_left: float) -> None: ...

    def forget(self) -> None: ...


class WorkingCredential:
    """Keeps `identity` good. Call `begin` once, then `run`.

    Args:
        read: the enrolment as it is now.
        ask: how auth is asked.
        clock: for when the next one is due.
        keeping: what survives a restart.
    """

    def __init__(
        self, read: ReadEnrolment, ask: Ask, clock: Clock, keeping: Keeping | None = None
    ) -> None:
        self._read = read
        self._cluster = read().cluster_id
        self._ask = ask
        self._clock = clock
        self._keeping = keeping
        self._again = asyncio.Event()
        self._due = 0.0
        self._reminded = float("-inf")
        self._said = ""
        self.identity = Identity.fresh()

    async def begin(self) -> None:
        """Return once there is a credential: one of the last time, or a fresh one."""
        kept = self._keeping.load() if self._keeping else None
        if kept is not None:
            self.identity, left = kept
            self._due = self._clock.monotonic() + left * DUE_AFTER
            log.info("credential of the last time taken up", seconds_left=int(left))
            return
        await self._renew()

    async def run(self, show: Show) -> None:
        """Renew in time, and when the bus refuses it; for ever."""
        while True:
            await self._until_due()
            await self._renew()
            await show()

    def refused(self) -> None:
        """The bus does not take the credential: get another one now."""
        self._again.set()

    async def _until_due(self) -> None:
        left = max(0.0, self._due - self._clock.monotonic())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._again.wait(), left)

    async def _renew(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                enrolment = self._current()
                answer = await self._ask(enrolment, self.identity.public_key)
            except (BusError, ProblemError, FatalError) as error:
                self._tell(error)
            else:
                self._take(answer)
                return
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))
            pause = min(pause * 2, LONGEST_PAUSE)

    def _current(self) -> Enrolment:
        enrolment = self._read()
        if enrolment.cluster_id != self._cluster:
            raise FatalError(
                f"The enrolment is now one of cluster {enrolment.cluster_id}; this agent serves "
                f"{self._cluster}. Restart it to serve the other one."
            )
        return enrolment

    def _take(self, answer: AgentCredential) -> None:
        self.identity.token = answer.token
        share = DUE_AFTER * random.uniform(1 - JITTER, 1)
        self._due = self._clock.monotonic() + answer.expires_in * share
        self._again.clear()
        self._said = ""
        if self._keeping is not None:
            self._keeping.save(self.identity, answer.expires_in)
        log.info("credential issued", expires_in=answer.expires_in)

    def _tell(self, error: Exception) -> None:
        """One line when something is wrong, and one each minute while it stays so."""
        said, now = _words(error), self._clock.monotonic()
        if said == self._said and now < self._reminded + REMIND_EVERY:
            return
        self._said, self._reminded = said, now
        if _is_refusal(error):
            # What it allowed is not good any more either.
            if self._keeping is not None:
                self._keeping.forget()
            log.error(said)
        else:
            log.warning(said)


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, ProblemError):
        return error.problem.code is Code.FORBIDDEN
    return isinstance(error, CredentialRefusedError | FatalError)


def _words(error: Exception) -> str:
    if isinstance(error, FatalError):
        return str(error)
    if _is_refusal(error):
        return (
            "the control plane does not take this enrolment: it was replaced or revoked. Have an "
            "administrator enrol the cluster again (streamspace clusters enrol ID --replace) and "
            "put the new enrolment in this one's place"
        )
    why = error.problem.detail if isinstance(error, ProblemError) else str(error)
    return f"waiting for a credential: auth or the bus cannot be reached ({why})"
