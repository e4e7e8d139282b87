"""The engine behind typed questions: the only module that knows aiodocker.

EngineError                  base
├── EngineUnreachableError   it does not answer, or broke off
├── NotFoundError            no such container, image, network or volume
├── ConflictError            the name is taken, or the thing is in use
└── RefusedError             it answered with another error; its words are the message
"""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from datetime import datetime
from typing import Any

import aiodocker
import aiohttp
from aiodocker.exceptions import DockerError, DockerStreamError
from aiodocker.volumes import DockerVolume

from streamspace_agent.runtimes.docker.views import (
    Container,
    Ending,
    EngineInfo,
    Happening,
    ImageFacts,
    Volume,
)

_CONNECT_SECONDS = 5.0
_VOLUME: Any = DockerVolume
_CANNOT_CONNECT = 900
"""What aiodocker uses for a status where there was no answer at all."""


class EngineError(Exception):
    """The engine did not do what was asked."""


class EngineUnreachableError(EngineError):
    """It does not answer."""


class NotFoundError(EngineError):
    """There is no such thing."""


class ConflictError(EngineError):
    """A name is taken, or a thing is in use."""


class RefusedError(EngineError):
    """It will not, or could not."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Engine:
    """A Docker-compatible engine.

    Args:
        address: as in DOCKER_HOST; None for that, or else the default socket.
        network: whose addresses count.
    """

    def __init__(self, address: str | None, network: str) -> None:
        self._address = address
        self._network = network
        self._client: aiodocker.Docker | None = None

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def info(self) -> EngineInfo:
        with _told():
            found = await self._docker().system.info()
        return EngineInfo(
            float(found.get("NCPU", 0)),
            int(found.get("MemTotal", 0)),
            str(found.get("ServerVersion", "")),
        )

    async def version(self) -> str:
        """Its version: the cheapest way to find out whether it answers."""
        with _told():
            return str((await self._docker().version()).get("Version", ""))

    async def now(self) -> float:
        """Seconds since 1970 by the engine's clock."""
        with _told():
            text = str((await self._docker().system.info()).get("SystemTime", ""))
        # Nine digits of a second are more than Python reads.
        moment = re.sub(r"(\.\d{6})\d+", r"\1", text)
        return datetime.fromisoformat(moment).timestamp() if moment else time.time()

    # Containers

    async def containers(self, labels: Mapping[str, str]) -> list[Container]:
        """All with these labels, dead or alive."""
        filters = json.dumps({"label": [f"{name}={value}" for name, value in labels.items()]})
        with _told():
            found = await self._docker().containers.list(all="true", filters=filters)
        return [self._container(dict(each._container)) for each in found]  # noqa: SLF001 - no accessor

    async def create(self, name: str, config: Mapping[str, Any]) -> str:
        """Create a container; returns its id.

        Raises:
            ConflictError: the name is taken.
            NotFoundError: no such image.
        """
        with _told():
            made = await self._docker().containers.create(dict(config), name=name)
        return str(made.id)

    async def find(self, name: str) -> str | None:
        """The id of the container of this name."""
        try:
            return str((await self._shown(name))["Id"])
        except NotFoundError:
            return None

    async def start(self, container: str) -> None:
        with _told():
            await self._handle(container).start()

    async def rename(self, container: str, name: str) -> None:
        """Give a container, named or by its id, another name; one step for the engine.

        Raises:
            NotFoundError: it is gone, or has another name by now.
            ConflictError: the new name is taken.
        """
        with _told():
            await self._handle(container).rename(name)

    async def stop(self, container: str, grace: int) -> None:
        """Ask it to end; after `grace` seconds it is killed."""
        with _told():
            await self._handle(container).stop(t=grace)

    async def remove(self, container: str) -> None:
        """Remove it, alive or not; one that is gone already is fine."""
        with contextlib.suppress(NotFoundError), _told():
            try:
                await self._handle(container).delete(force=True, v=True)
            except DockerError as error:
                # Somebody else is removing it at this moment.
                if error.status != 409 or "already in progress" not in error.message:
                    raise

    async def wait_until_ended(self, container: str) -> None:
        """Return when it does not run any more, or is gone."""
        with contextlib.suppress(NotFoundError), _told():
            await self._handle(container).wait()

    async def address(self, container: str) -> str | None:
        """Its address in our network, None while it has none."""
        return _address((await self._shown(container)).get("NetworkSettings"), self._network)

    async def ending(self, container: str) -> Ending | None:
        """How it ended, None while it runs.

        Raises:
            NotFoundError: it is gone.
        """
        state = dict((await self._shown(container)).get("State") or {})
        if state.get("Running"):
            return None
        return Ending(
            int(state.get("ExitCode", 0)),
            bool(state.get("OOMKilled")),
            str(state.get("Error") or ""),
        )

    async def last_lines(self, container: str, count: int) -> str:
        """The end of what it printed.

        Raises:
            NotFoundError: it is gone, or being removed.
        """
        try:
            with _told():
                lines = await self._handle(container).log(stdout=True, stderr=True, tail=count)
        except ConflictError as error:
            raise NotFoundError(str(error)) from error
        return "".join(lines)

    async def happenings(
        self, labels: Mapping[str, str], since: float
    ) -> AsyncGenerator[Happening, None]:
        """What happens to containers with these labels, until the engine is gone.

        Args:
            labels: those the containers have.
            since: seconds since 1970 by the engine's clock; what was before is left out.
        """
        filters = json.dumps(
            {
                "type": ["container"],
                "event": ["die", "destroy"],
                "label": [f"{name}={value}" for name, value in labels.items()],
            }
        )
        docker = self._docker()
        subscriber = docker.events.subscribe(create_task=False)
        reading = asyncio.create_task(docker.events.run(filters=filters, since=f"{since:.3f}"))
        try:
            while (event := await subscriber.get()) is not None:
                actor = event.get("Actor") or {}
                name = (actor.get("Attributes") or {}).get("name", "")
                yield Happening(str(event.get("Action", "")), str(actor.get("ID", "")), str(name))
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, DockerError, aiohttp.ClientError):
                await reading

    # Volumes, networks, images

    async def volumes(self, labels: Mapping[str, str]) -> list[Volume]:
        filters = {"label": [f"{name}={value}" for name, value in labels.items()]}
        with _told():
            found = await self._docker().volumes.list(filters=filters)
        return [
            Volume(each["Name"], each.get("Labels") or {}, str(each.get("CreatedAt", "")))
            for each in found.get("Volumes") or []
        ]

    async def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        """Create a volume; one that is there already is left as it is."""
        with _told():
            await self._docker().volumes.create({"Name": name, "Labels": dict(labels)})

    async def remove_volume(self, name: str) -> None:
        """Remove a volume; one that is gone already is fine.

        Raises:
            ConflictError: a container uses it.
        """
        with contextlib.suppress(NotFoundError), _told():
            await _VOLUME(self._docker(), name).delete()

    async def has_network(self, name: str) -> bool:
        try:
            with _told():
                await self._docker().networks.get(name)
        except NotFoundError:
            return False
        return True

    async def create_network(self, config: Mapping[str, Any]) -> None:
        """Create a network.

        Raises:
            ConflictError: its name is taken.
        """
        with _told():
            await self._docker().networks.create(dict(config))

    async def image(self, name: str) -> ImageFacts | None:
        """What an image that is here says of itself; None where it has to be pulled."""
        try:
            with _told():
                found = await self._docker().images.inspect(name)
        except NotFoundError:
            return None
        config = found.get("Config") or {}
        pairs = (entry.partition("=") for entry in config.get("Env") or [])
        return ImageFacts(str(config.get("User") or ""), {name: value for name, _, value in pairs})

    async def pull(self, name: str) -> AsyncIterator[Mapping[str, Any]]:
        """Fetch an image; yields what the engine tells of its progress."""
        with _told():
            async for line in self._docker().images.pull(name, stream=True):
                yield line

    def _docker(self) -> Any:  # some of it bears no types
        if self._client is None:
            try:
                self._client = aiodocker.Docker(
                    self._address,
                    timeout=aiohttp.ClientTimeout(sock_connect=_CONNECT_SECONDS),
                )
            except (ValueError, AssertionError) as error:
                raise EngineUnreachableError(
                    "No container engine was found: neither DOCKER_HOST nor the default socket."
                ) from error
        return self._client

    def _handle(self, container: str) -> Any:
        return self._docker().containers.container(container)

    async def _shown(self, container: str) -> dict[str, Any]:
        with _told():
            return dict(await self._handle(container).show())

    def _container(self, listed: dict[str, Any]) -> Container:
        names = listed.get("Names") or [""]
        return Container(
            id=str(listed["Id"]),
            name=str(names[0]).removeprefix("/"),
            labels=listed.get("Labels") or {},
            alive=listed.get("State") in {"running", "paused", "restarting"},
            created=float(listed.get("Created", 0)),
            address=_address(listed.get("NetworkSettings"), self._network),
        )


def _address(settings: Any, network: str) -> str | None:
    networks = (settings or {}).get("Networks") or {}
    return (networks.get(network) or {}).get("IPAddress") or None


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn the client's errors into ours."""
    try:
        yield
    except DockerStreamError as error:
        raise RefusedError(500, error.message) from error
    except DockerError as error:
        match error.status:
            case 404:
                raise NotFoundError(error.message) from error
            case 409:
                raise ConflictError(error.message) from error
            case status if status == _CANNOT_CONNECT:
                raise EngineUnreachableError(error.message) from error
            case status:
                raise RefusedError(status, error.message) from error
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        raise EngineUnreachableError(str(error) or type(error).__name__) from error
