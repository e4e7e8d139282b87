"""A runtime behind the few things a test does to a session from outside, and specs for it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from streamspace_agent.ports import Runtime
from streamspace_common.contracts.catalog import (
    Connection,
    EnvVar,
    Metadata,
    ProcessSpec,
    Protocol,
    ResourceAmounts,
    TemplateManifest,
    TemplateSpec,
)
from streamspace_common.contracts.ids import SessionId, TemplateId, UserId
from streamspace_common.contracts.sessions import Owner, SessionSpec

MakeSpec = Callable[..., SessionSpec]


@dataclass
class Installation:
    """What several agents' runtimes share, and those that use it one after another.

    `kill` lets a desktop die; `remains` names what runs or lies around of any session.
    """

    make: Callable[[], Runtime]
    kill: Callable[[Runtime, SessionId], Awaitable[None]]
    remains: Callable[[], list[str]]
    runtime: Runtime
    _all: list[Runtime] = field(default_factory=list)

    async def another(self) -> Runtime:
        """A second agent's runtime beside, or after, the first."""
        runtime = self.make()
        await runtime.open()
        self._all.append(runtime)
        return runtime

    async def begin(self) -> None:
        """Open the first runtime."""
        await self.runtime.open()
        self._all.append(self.runtime)

    async def end(self) -> None:
        """Leave nothing behind."""
        for observed in await self.runtime.inventory():
            await self.runtime.ensure_absent(observed.session_id, 10**6, delete_home=False)
        await self.close()

    async def close(self) -> None:
        for runtime in self._all:
            await runtime.close(stop_sessions=False)


def make_spec(
    session: str = "ada-terminal-00000001",
    *,
    command: tuple[str, ...] = ("xterm",),
    panel: bool = False,
    window_manager: bool = True,
    persistent_home: bool = True,
    http_port: int | None = None,
    display: bool = True,
    image: str | None = None,
    env: dict[str, str] | None = None,
    template_env: dict[str, str] | None = None,
) -> SessionSpec:
    """A spec of a terminal session."""
    template = TemplateSpec(
        display_name="Terminal",
        connection=(
            Connection(protocol=Protocol.VNC, port=5900)
            if http_port is None
            else Connection(protocol=Protocol.HTTP, port=http_port)
        ),
        base_image=image,
        process=ProcessSpec(
            command=command, panel=panel, window_manager=window_manager, display=display
        ),
        env=tuple(EnvVar(name=k, value=v) for k, v in (template_env or {}).items()),
    )
    return SessionSpec(
        session_id=SessionId(session),
        owner=Owner(user_id=UserId(f"usr-{'0' * 32}"), username="ada"),
        template_id=TemplateId("starter_terminal"),
        template_digest="0" * 64,
        template_manifest=TemplateManifest(metadata=Metadata(name="terminal"), spec=template),
        resources=ResourceAmounts(),
        persistent_home=persistent_home,
        home="ada-00000000",
        env=env or {},
    )
