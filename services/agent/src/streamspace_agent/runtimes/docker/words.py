"""The words of sessions in the engine: what each generation wanted, as empty named volumes.

They are written before the work and read again after it. The highest one counts; those
below are dropped once the work of a higher one is done, and all of them when nobody can
ask any more.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from streamspace_agent.ports import Superseded
from streamspace_agent.runtimes.docker import manifests, naming
from streamspace_agent.runtimes.docker.engine import Engine, EngineError
from streamspace_agent.runtimes.docker.naming import Kind, Names
from streamspace_agent.runtimes.docker.observation import Word, last
from streamspace_agent.runtimes.docker.views import Volume
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import DesiredState

KEPT_FOR = timedelta(days=8)
"""A day longer than a command can wait in its stream."""


class Words:
    """The words of one installation."""

    def __init__(self, engine: Engine, names: Names) -> None:
        self._engine = engine
        self._names = names

    async def of(self, session: SessionId) -> list[Word]:
        """A session's words that are left, in no order."""
        wanted = manifests.label_filter(self._names, Kind.WORD, session)
        return [word for each in await self._engine.volumes(wanted) if (word := _read(each))]

    async def all(self) -> Mapping[SessionId, list[Word]]:
        found: defaultdict[SessionId, list[Word]] = defaultdict(list)
        for volume in await self._engine.volumes(manifests.label_filter(self._names, Kind.WORD)):
            if (word := _read(volume)) is not None:
                found[word.session].append(word)
        return found

    async def speak(
        self, session: SessionId, generation: int, wanted: DesiredState, home: str | None = None
    ) -> list[Word]:
        """Write a word; returns all there are. A stop takes over the home of the one before.

        Raises:
            Superseded: there is a higher one.
        """
        before = await self.of(session)
        newest = last(before)
        if newest is not None and newest.generation > generation:
            raise Superseded(newest.generation)
        if newest is None or newest.generation < generation:
            if home is None and newest is not None:
                home = newest.home
            labels = {
                naming.SESSION: session,
                naming.GENERATION: str(generation),
                naming.WANTED: wanted.value,
            } | ({naming.HOME: home} if home is not None else {})
            await self._engine.create_volume(
                self._names.word(session, generation), self._names.labels(Kind.WORD, labels)
            )
        # Again: of two that write at once, at least one sees the other's word.
        return await self.check(session, generation)

    async def check(self, session: SessionId, generation: int) -> list[Word]:
        """Read them again.

        Raises:
            Superseded: there is a higher one.
        """
        words = await self.of(session)
        newest = last(words)
        if newest is not None and newest.generation > generation:
            raise Superseded(newest.generation)
        return words

    async def drop_older(self, words: list[Word], generation: int) -> None:
        """Forget the words below a generation whose work is done."""
        for word in words:
            if word.generation < generation:
                await self._drop(word)

    async def prune(self, held: frozenset[SessionId], older_than: timedelta = KEPT_FOR) -> None:
        """Forget what nobody can need any more: old words of what is neither held nor rests."""
        oldest = datetime.now(UTC) - older_than
        for session, words in (await self.all()).items():
            newest = last(words)
            at_rest = any(word.wanted is DesiredState.HIBERNATED for word in words)
            if newest is None or session in held or at_rest:
                continue
            if _time(newest.written) < oldest:
                for word in words:
                    await self._drop(word)

    async def _drop(self, word: Word) -> None:
        try:
            await self._engine.remove_volume(self._names.word(word.session, word.generation))
        except EngineError:
            # It says nothing that the newer one does not; the next one drops it.
            return


def _read(volume: Volume) -> Word | None:
    labels = volume.labels
    try:
        return Word(
            SessionId(labels[naming.SESSION]),
            int(labels[naming.GENERATION]),
            DesiredState(labels[naming.WANTED]),
            labels.get(naming.HOME),
            volume.created,
        )
    except (KeyError, ValueError):
        # Of a version to come, or somebody's own doing.
        return None


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.now(UTC)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
