"""Sees desktops that end by themselves, within a moment, and clears up what was left behind.

The engine's events tell of an end at once. They break off when the engine restarts; so
after each new connection, and every minute besides, everything is looked at: a desktop
that died unseen lies there, and one that was removed is missing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

from streamspace_agent.domain import Death, Observed
from streamspace_agent.runtimes.docker import manifests, trouble
from streamspace_agent.runtimes.docker.engine import Engine, EngineError, NotFoundError
from streamspace_agent.runtimes.docker.holdings import Holdings
from streamspace_agent.runtimes.docker.manifests import ContainerOptions
from streamspace_agent.runtimes.docker.naming import ContainerName, Kind, Stage
from streamspace_agent.runtimes.docker.observation import Held, is_death
from streamspace_agent.runtimes.docker.views import Happening
from streamspace_agent.runtimes.docker.words import KEPT_FOR, Words
from streamspace_common.contracts.clusters import ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Reason
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

_LOG_LINES = 8
_LOOK_EVERY = 60.0
_PRUNE_EVERY = 3600.0
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 2.0


class Follower:
    """Follows one installation.

    Args:
        engine: the engine.
        words: what was asked for.
        holdings: the containers there are.
        options: what containers have in common.
        abandoned_after: seconds after which a start in progress is nobody's any more.
        resume: called with a desktop that was ended together with its agent.
    """

    def __init__(
        self,
        engine: Engine,
        words: Words,
        holdings: Holdings,
        options: ContainerOptions,
        *,
        abandoned_after: float,
        resume: Callable[[Held], Awaitable[None]],
    ) -> None:
        self._engine = engine
        self._words = words
        self._holdings = holdings
        self._names = options.names
        self._abandoned_after = abandoned_after
        self._resume = resume
        self._running: dict[str, ContainerName] = {}
        self._told: set[str] = set()
        self._pruned = time.monotonic()
        self.deaths: asyncio.Queue[Observed] = asyncio.Queue()

    def note(self, container: str, session: SessionId, generation: int) -> None:
        """A desktop answers now: its disappearance will be news."""
        self._running[container] = ContainerName(session, generation, Stage.SETTLED)

    async def run(self) -> None:
        """Follow for ever, whatever the engine does."""
        pause = _FIRST_PAUSE
        away = False
        while True:
            try:
                since = await self._engine.now()
                await self.look(engine_was_away=away)
                pause = _FIRST_PAUSE
                if away:
                    log.info("the container engine answers again")
                away = False
                await self._follow(since)
            except EngineError as error:
                if not away:
                    log.warning("the container engine does not answer", error=str(error))
            away = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def look(self, *, engine_was_away: bool = False) -> None:
        """Look at everything there is.

        Raises:
            EngineError: it could not be seen.
        """
        now = await self._engine.now()
        holdings = await self._holdings.all()
        for session, held in holdings.items():
            for each in held:
                await self._look_at(session, each, now, engine_was_away=engine_was_away)
        there = {each.container.id: each for held in holdings.values() for each in held}
        for container in self._running.keys() - there.keys():
            await self._is_gone(container, self._running.pop(container))
        for container, each in there.items():
            if each.alive and each.name.stage is Stage.SETTLED:
                self._running[container] = each.name
        self._told &= there.keys()
        if time.monotonic() - self._pruned > _PRUNE_EVERY:
            self._pruned = time.monotonic()
            await self._words.prune(frozenset(holdings))

    async def _follow(self, since: float) -> None:
        labels = manifests.label_filter(self._names, Kind.SESSION)
        async with aclosing(self._engine.happenings(labels, since)) as happenings:
            looking = asyncio.create_task(self._keep_looking())
            try:
                async for happening in happenings:
                    await self._on(happening)
            finally:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            try:
                await self.look()
            except EngineError as error:
                log.warning("the container engine cannot be looked at", error=str(error))

    async def _on(self, happening: Happening) -> None:
        name = self._names.read(happening.name)
        if name is None or name.stage is not Stage.SETTLED:
            # On its way up or down: somebody is at it who will tell.
            self._running.pop(happening.id, None)
            return
        if happening.action == "die":
            await self._is_dead(happening.id, name)
        elif self._running.pop(happening.id, None) is not None:
            await self._is_gone(happening.id, name)

    async def _look_at(
        self, session: SessionId, held: Held, now: float, *, engine_was_away: bool
    ) -> None:
        age = now - held.container.created
        match held.name.stage:
            case Stage.ENDING:
                await self._holdings.remove(held, gently=True)
            case Stage.SUSPENDED:
                await self._resume(held)
            case Stage.STARTING if age > self._abandoned_after:
                log.info("removing a start that was cut short", session=session)
                await self._holdings.remove(held)
            case Stage.SETTLED if not held.alive and age > KEPT_FOR.total_seconds():
                await self._holdings.remove(held)
            case Stage.SETTLED if not held.alive:
                await self._is_dead(held.container.id, held.name, engine_was_away=engine_was_away)

    async def _is_dead(
        self, container: str, name: ContainerName, *, engine_was_away: bool = False
    ) -> None:
        self._running.pop(container, None)
        if container in self._told:
            return
        words = await self._words.of(name.session)
        if not is_death(words, name.generation):
            return
        reason, message = Reason.DESKTOP_DIED, trouble.REMOVED
        try:
            ending = await self._engine.ending(container)
            if ending is None:
                return
            lines = await self._engine.last_lines(container, _LOG_LINES)
            reason, message = trouble.death(ending, lines, engine_was_away=engine_was_away)
        except NotFoundError:
            pass
        self._tell(container, name, Death(container[:16], message, reason))

    async def _is_gone(self, container: str, name: ContainerName) -> None:
        if container in self._told:
            return
        if is_death(await self._words.of(name.session), name.generation):
            self._tell(container, name, Death(container[:16], trouble.REMOVED))

    def _tell(self, container: str, name: ContainerName, death: Death) -> None:
        self._told.add(container)
        log.warning("desktop died", session=name.session, message=death.message)
        self.deaths.put_nowait(Observed(name.session, name.generation, ResourceState.DEAD, death))

    async def details(self, session: SessionId, held: list[Held], observed: Observed) -> Observed:
        """What is observed, and how it died if it did."""
        dead = next((h for h in held if h.name.stage is Stage.SETTLED and not h.alive), None)
        if observed.state is not ResourceState.DEAD or dead is None:
            return observed
        try:
            ending = await self._engine.ending(dead.container.id)
            lines = await self._engine.last_lines(dead.container.id, _LOG_LINES)
        except NotFoundError:
            return observed
        if ending is None:
            return observed
        reason, message = trouble.death(ending, lines)
        return replace(observed, death=Death(dead.container.id[:16], message, reason))
