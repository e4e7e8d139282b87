"""One start of one session: its image, its container, its first answer; or all of it undone."""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from streamspace_agent.ports import PassingFailure, PermanentFailure, ReportPhase
from streamspace_agent.runtimes.cleanup import undisturbed
from streamspace_agent.runtimes.containers import images
from streamspace_agent.runtimes.containers.quantities import size
from streamspace_agent.runtimes.docker import manifests, readiness, trouble
from streamspace_agent.runtimes.docker.care import whole
from streamspace_agent.runtimes.docker.engine import (
    ConflictError,
    Engine,
    EngineUnreachableError,
    NotFoundError,
    RefusedError,
)
from streamspace_agent.runtimes.docker.holdings import Holdings
from streamspace_agent.runtimes.docker.manifests import ContainerOptions
from streamspace_agent.runtimes.docker.naming import Stage
from streamspace_agent.runtimes.docker.observation import Held
from streamspace_agent.runtimes.docker.pulling import Pulling
from streamspace_agent.runtimes.docker.views import ImageFacts
from streamspace_agent.runtimes.docker.words import Words
from streamspace_common.contracts.catalog import Connection
from streamspace_common.contracts.sessions import Phase, Reason, SessionSpec
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)

_LOG_LINES = 8
_TELL_EVERY = 2.0
"""Seconds between two words about a pull: each is an event that is stored."""
_BAD_REQUEST = 400


class Starts:
    """Carries out starts; under the session's lock.

    Args:
        engine: where containers run.
        words: read once more before a start counts.
        holdings: the containers there are.
        options: what containers have in common.
        timeout: seconds a desktop may take until it answers.
    """

    def __init__(
        self,
        engine: Engine,
        words: Words,
        holdings: Holdings,
        options: ContainerOptions,
        *,
        timeout: float,
    ) -> None:
        self._engine = engine
        self._words = words
        self._holdings = holdings
        self._options = options
        self._names = options.names
        self._timeout = timeout

    async def carry_out(
        self, spec: SessionSpec, generation: int, before: Sequence[Held], report_phase: ReportPhase
    ) -> str:
        """Bring a container up in place of those there were; returns its id.

        Raises:
            RuntimeFailure: it did not come up; nothing of it is left.
        """
        named = spec.template_manifest.spec.base_image
        if not named:
            raise PermanentFailure(
                Reason.UNSUPPORTED_TEMPLATE, "The template names no image to run (baseImage)."
            )
        image = images.pulled_from(named, self._options.image_mirrors)
        report_phase(Phase.SCHEDULED)
        facts = await self._have(image, report_phase)
        try:
            config = manifests.container(spec, generation, facts, self._options)
        except ValueError as error:
            raise PermanentFailure(Reason.UNSUPPORTED_TEMPLATE, f"{error}.") from error
        name = self._names.container(spec.session_id, generation, Stage.STARTING)
        for held in before:
            if held.container.name != name or not held.alive:
                await self._holdings.remove(held)
        return await self._start(spec, generation, name, config, report_phase)

    async def _start(
        self,
        spec: SessionSpec,
        generation: int,
        name: str,
        config: Mapping[str, Any],
        report_phase: ReportPhase,
    ) -> str:
        session = spec.session_id
        image = str(config["Image"])
        container = None
        try:
            container = await self._create(name, config)
            report_phase(Phase.CREATED)
            try:
                await whole(self._engine.start(container))
            except (RefusedError, NotFoundError) as error:
                raise trouble.of_start(image, str(error)) from error
            report_phase(Phase.STARTED)
            await self.until_ready(container, manifests.connection_of(spec.template_manifest))
            await self._words.check(session, generation)
            settled = self._names.container(session, generation, Stage.SETTLED)
            try:
                await whole(self._engine.rename(name, settled))
            except (NotFoundError, ConflictError) as error:
                raise PassingFailure("Another agent works on this session.") from error
            name = settled
            await self._words.check(session, generation)
        except BaseException:
            await undisturbed(self._undo(spec, generation, name, container))
            raise
        report_phase(Phase.READY)
        return container

    async def until_ready(self, container: str, connection: Connection) -> None:
        """Wait until the session answers.

        Raises:
            PermanentFailure: it ended before, or was silent for too long.
        """
        answers = asyncio.create_task(self._answers(container, connection))
        ends = asyncio.create_task(self._engine.wait_until_ended(container))
        try:
            done, _ = await asyncio.wait(
                {answers, ends}, timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if answers in done:
                answers.result()
                return
            if ends in done:
                ends.result()
        finally:
            for task in (answers, ends):
                task.cancel()
            await asyncio.gather(answers, ends, return_exceptions=True)
        raise await self._why_not(container)

    async def _answers(self, container: str, connection: Connection) -> None:
        address = await self._engine.address(container)
        if address is None:
            # It has lost its address because it has ended: its end is what counts.
            await asyncio.Event().wait()
            return
        await readiness.until_it_answers(address, connection)

    async def _why_not(self, container: str) -> PermanentFailure | PassingFailure:
        try:
            words = await self._engine.last_lines(container, _LOG_LINES)
            ending = await self._engine.ending(container)
        except NotFoundError:
            return PassingFailure("Its container was removed while it was starting.")
        if ending is not None:
            return trouble.ended_before_ready(ending, words)
        return PermanentFailure(
            Reason.START_FAILED,
            f"It did not answer within {self._timeout:.0f} s.{trouble.last_words(words)}",
        )

    async def _have(self, image: str, report_phase: ReportPhase) -> ImageFacts:
        """What the image says of itself; it is pulled where it is not here yet."""
        facts = await self._engine.image(image)
        if facts is not None:
            return facts
        began = told = time.monotonic()
        pulling = Pulling()
        report_phase(Phase.PULLING, said := pulling.words(), ongoing=True)
        try:
            async for line in self._engine.pull(image):
                pulling.take(line)
                if time.monotonic() - told > _TELL_EVERY and (words := pulling.words()) != said:
                    told, said = time.monotonic(), words
                    report_phase(Phase.PULLING, words, ongoing=True)
        except EngineUnreachableError:
            raise
        except (RefusedError, NotFoundError, ConflictError) as error:
            raise trouble.of_pull(image, str(error)) from error
        seconds = time.monotonic() - began
        log.info("pulled", image=image, seconds=round(seconds, 1), bytes=pulling.bytes)
        fetched = size(pulling.bytes) if pulling.bytes else "The image"
        report_phase(Phase.PULLING, f"{fetched} in {seconds:.0f} s.")
        facts = await self._engine.image(image)
        if facts is None:
            raise PassingFailure(f"The image {image} is gone again right after it was fetched.")
        return facts

    async def _create(self, name: str, config: Mapping[str, Any]) -> str:
        image = str(config["Image"])
        try:
            return await whole(self._engine.create(name, config))
        except ConflictError as error:
            # Another agent, or an earlier one that was killed, has begun the same start.
            container = await self._engine.find(name)
            if container is None:
                raise PassingFailure("Another agent works on this session.") from error
            return container
        except NotFoundError as error:
            raise PassingFailure(f"The container engine could not create it: {error}.") from error
        except RefusedError as error:
            if error.status == _BAD_REQUEST:
                raise trouble.of_refused_container(image, str(error)) from error
            raise trouble.of_start(image, str(error)) from error

    async def _undo(
        self, spec: SessionSpec, generation: int, name: str, container: str | None
    ) -> None:
        """As if it had never begun; what cannot be removed now is found again by its name."""
        with contextlib.suppress(EngineUnreachableError, RefusedError):
            if container is None:
                container = await self._engine.find(name)
            if container is None:
                return
            session = spec.session_id
            if await self._holdings.doom(name, session, generation, container):
                await self._engine.remove(container)
