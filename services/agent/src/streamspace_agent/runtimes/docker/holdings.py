"""The containers of an installation, found by their labels and read by their names."""

import contextlib
from collections import defaultdict
from collections.abc import Mapping

from streamspace_agent.runtimes.docker import manifests
from streamspace_agent.runtimes.docker.engine import (
    ConflictError,
    Engine,
    NotFoundError,
    RefusedError,
)
from streamspace_agent.runtimes.docker.manifests import ContainerOptions
from streamspace_agent.runtimes.docker.naming import Kind, Stage
from streamspace_agent.runtimes.docker.observation import Held
from streamspace_common.contracts.ids import SessionId


class Holdings:
    """Finds them, passes them on between generations, and takes them away."""

    def __init__(self, engine: Engine, options: ContainerOptions) -> None:
        self._engine = engine
        self._options = options
        self._names = options.names

    async def of(self, session: SessionId) -> list[Held]:
        return await self._list(manifests.label_filter(self._names, Kind.SESSION, session))

    async def all(self) -> Mapping[SessionId, list[Held]]:
        found: defaultdict[SessionId, list[Held]] = defaultdict(list)
        for held in await self._list(manifests.label_filter(self._names, Kind.SESSION)):
            found[held.name.session].append(held)
        return found

    async def move(self, held: Held, generation: int, stage: Stage) -> bool:
        """Give a container another generation or stage; False when somebody was faster.

        Raises:
            ConflictError: another container has that name.
        """
        name = self._names.container(held.name.session, generation, stage)
        try:
            await self._engine.rename(held.container.name, name)
        except NotFoundError:
            return False
        return True

    async def remove(self, held: Held, *, gently: bool = False) -> None:
        """Take a container away; one that somebody else took over meanwhile is left to them.

        Args:
            held: the container, as it was found.
            gently: whether its programs get time to end.
        """
        container = held.container
        if held.name.stage is not Stage.ENDING and not await self.doom(
            container.name, held.name.session, held.name.generation, container.id
        ):
            return
        if gently and held.alive:
            with contextlib.suppress(NotFoundError, RefusedError):
                await self._engine.stop(container.id, self._options.grace)
        await self._engine.remove(container.id)

    async def doom(self, name: str, session: SessionId, generation: int, container_id: str) -> bool:
        """Mark a container as ours to remove; False when nothing bears the name any more."""
        try:
            await self._engine.rename(name, self._names.doomed(session, generation, container_id))
        except NotFoundError:
            return False
        except ConflictError:
            # It bears that name already, or is being removed.
            return True
        return True

    async def _list(self, labels: Mapping[str, str]) -> list[Held]:
        return [
            Held(container, name)
            for container in await self._engine.containers(labels)
            if (name := self._names.read(container.name)) is not None
        ]
