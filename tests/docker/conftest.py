"""A real container engine for all tests of this folder, which run on one worker.

See `tests.support.engine` for where it comes from. Without one they are skipped and say why.
"""

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support import built_images, images
from tests.support.debian import UnavailableError
from tests.support.engine import Engine, running_engine
from tests.support.installation import Installation, MakeSpec
from tests.support.installation import make_spec as make_any_spec
from tests.support.registry import Registry

from streamspace_agent.ports import Runtime
from streamspace_agent.runtimes.docker.manifests import ContainerOptions
from streamspace_agent.runtimes.docker.naming import INSTALLATION
from streamspace_agent.runtimes.docker.runtime import DockerOptions, DockerRuntime
from streamspace_common.contracts.clusters import Capacity
from streamspace_common.contracts.ids import SessionId

pytest.register_assert_rewrite("tests.support.runtime_behaviour")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.docker)
            # The first one may have to make images.
            item.add_marker(pytest.mark.timeout(2400))


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    try:
        with running_engine() as running:
            yield running
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def session_image(engine: Engine) -> str:
    """A desktop's image, on the engine."""
    try:
        archive = images.archive(images.SESSION)
    except UnavailableError as error:
        pytest.skip(str(error))
    engine.docker("load", "--input", str(archive))
    return images.SESSION.tag


@pytest.fixture(scope="session")
def desktop_archive(session_image: str) -> Path:
    """The same image as an archive."""
    return images.archive(images.SESSION)


def _changed(engine: Engine, image: str, name: str, entrypoint: str) -> str:
    container = engine.docker("create", image)
    engine.docker("commit", "--change", f"ENTRYPOINT {entrypoint}", container, name)
    engine.docker("rm", container)
    return name


@pytest.fixture(scope="session")
def broken_image(engine: Engine, session_image: str) -> str:
    """An image whose desktop fails with some last words."""
    return _changed(
        engine,
        session_image,
        "streamspace.test/broken:1",
        '["sh", "-c", "echo no display today >&2; exit 7"]',
    )


@pytest.fixture(scope="session")
def unstartable_image(engine: Engine, session_image: str) -> str:
    """An image whose program is missing."""
    return _changed(engine, session_image, "streamspace.test/unstartable:1", '["/no/program"]')


@pytest.fixture(scope="session")
def built(engine: Engine) -> None:
    """All images of our own, on the engine."""
    try:
        built_images.provide(engine)
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def registry(engine: Engine) -> Iterator[Registry]:
    """A registry that the engine reaches."""
    with Registry(engine.here) as running:
        yield running


@pytest.fixture
def make_spec(session_image: str) -> MakeSpec:
    """Specs of a session of the desktop's image."""
    return partial(make_any_spec, image=session_image)


@pytest.fixture
def prefix(engine: Engine) -> Iterator[str]:
    """An installation's name on the engine; all of it is removed in the end."""
    name = f"test{secrets.token_hex(4)}"
    yield name
    remove_installation(engine, name)


@pytest.fixture
def stranger(engine: Engine, prefix: str) -> Iterator[str]:
    """Another installation's name on the same engine."""
    name = f"{prefix}-stranger"
    yield name
    remove_installation(engine, name)


def remove_installation(engine: Engine, name: str) -> None:
    mine = f"label={INSTALLATION}={name}"
    for kind in ("container", "volume", "network"):
        every = ["--all"] if kind == "container" else []
        found = engine.docker(kind, "ls", *every, "--quiet", "--filter", mine).split()
        if found:
            force = ["--force"] if kind != "network" else []
            engine.docker(kind, "rm", *force, *found)


@pytest.fixture
def make_runtime(engine: Engine, prefix: str) -> Callable[..., DockerRuntime]:
    def make(**containers: object) -> DockerRuntime:
        return DockerRuntime(
            DockerOptions(
                offer=lambda info: Capacity(max_sessions=10, cpu=info.cpus, memory=info.memory),
                host=engine.url,
                containers=ContainerOptions(**{"prefix": prefix, **containers}),  # type: ignore[arg-type]
                start_timeout=60,
            )
        )

    return make


@pytest_asyncio.fixture
async def installation(
    engine: Engine, prefix: str, make_runtime: Callable[..., Runtime]
) -> AsyncIterator[Installation]:
    async def kill(_runtime: Runtime, session: SessionId) -> None:
        for name in running():
            if f"-{session}." in name:
                engine.docker("kill", name)

    def running() -> list[str]:
        found = engine.docker(
            "container",
            "ls",
            "--filter",
            f"label={INSTALLATION}={prefix}",
            "--format",
            "{{.Names}}",
        )
        return found.split()

    made = Installation(make_runtime, kill, running, make_runtime())
    await made.begin()
    try:
        yield made
    finally:
        await made.end()
