"""A service that is somebody else's now: its rights keep it to its own part.

Each row runs with the service's rights, where it has to fail, and without, where it has to
succeed. `docs/reference/threats.md` tells them in words.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.support.secured import ALL, Defence, Secured

from streamspace_common.bus import Bus, BusError
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.permissions import SERVICES
from streamspace_common.testing.waiting import eventually

LAB = ClusterId("lab")
COMMAND = "cmd.lab.s-1"
PUBLISH = [
    *((service, COMMAND) for service in ("gateway", "auth", "catalog-sync", "vnc-proxy")),
    ("gateway", "evt.core.user.x.created"),
    ("gateway", "evt.lab.session.s-1.started"),
    ("vnc-proxy", "evt.core.session.s-1.created"),
    ("vnc-proxy", "evt.core.user.x.created"),
    ("auth", "evt.core.session.s-1.created"),
    ("auth", "evt.lab.session.s-1.started"),
    ("catalog-sync", "evt.core.user.x.created"),
    ("session", "evt.core.user.x.created"),
    ("session", "evt.lab.session.s-1.started"),
]
ASK = [
    ("vnc-proxy", "svc.session.create"),
    ("vnc-proxy", "svc.auth.login"),
    ("auth", "rpc.lab.open_tunnel"),
    ("auth", "svc.session.create"),
    ("catalog-sync", "rpc.lab.open_tunnel"),
    ("catalog-sync", "svc.auth.login"),
    ("gateway", "rpc.lab.open_tunnel"),
]
READ = [
    (service, f"$JS.API.{request}")
    for service in ("auth", "catalog-sync")
    for request in ("STREAM.INFO.COMMANDS", "STREAM.INFO.EVENTS", "STREAM.PURGE.COMMANDS")
] + [
    ("gateway", "$JS.API.STREAM.PURGE.COMMANDS"),
    ("gateway", "$JS.API.STREAM.INFO.COMMANDS"),
    ("vnc-proxy", "$JS.API.STREAM.DELETE.COMMANDS"),
]
LISTEN = [
    (service, subject)
    for service, subject in [
        ("gateway", "svc.auth.*"),
        ("gateway", "_INBOX_session.>"),
        ("vnc-proxy", "svc.session.*"),
        ("auth", "svc.session.*"),
        ("catalog-sync", "cmd.>"),
        ("session", "svc.auth.*"),
    ]
]

Begin = Callable[[frozenset[Defence]], Any]


@pytest.fixture
async def begin(tmp_path: Path) -> AsyncIterator[Begin]:
    started: list[Secured] = []

    async def make(defences: frozenset[Defence]) -> tuple[Secured, Bus]:
        secured = Secured(tmp_path / "nats", defences=defences)
        secured.server.start()
        started.append(secured)
        await secured.enrol(LAB)
        session = await secured.service("session")
        await secured.streams(session)
        return secured, session

    yield make
    for secured in started:
        await secured.close()
        secured.server.stop()


@pytest.fixture(params=[True, False], ids=["with-its-rights", "without"])
def rights(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def standing(rights: bool) -> frozenset[Defence]:
    return ALL if rights else ALL - {Defence.RIGHTS}


async def answered(bus: Bus, subject: str) -> bool:
    asked = LAB if subject.startswith("rpc.") else None
    with suppress(BusError):
        answer = await bus.link.request(subject, b"{}", timeout=5, cluster=asked)
        return b'"error"' not in answer.data
    return False


@pytest.mark.parametrize(("service", "subject"), PUBLISH)
async def test_a_service_stores_nothing_that_is_not_its_own_to_say(
    begin: Begin, rights: bool, service: str, subject: str
) -> None:
    secured, _ = await begin(standing(rights))
    intruder = await secured.intruder(service)
    assert await answered(intruder, subject) is not rights


@pytest.mark.parametrize(("service", "subject"), ASK)
async def test_a_service_asks_nobody_but_whom_it_has_to(
    begin: Begin, rights: bool, service: str, subject: str
) -> None:
    secured, _ = await begin(standing(rights))
    victim = await (secured.agent(LAB) if subject.startswith("rpc.") else secured.anybody())

    async def answer(message: Any) -> None:
        await victim.link.client.publish(message.reply, b"{}")

    await victim.link.client.subscribe(subject, cb=answer)
    await victim.link.flush()
    intruder = await secured.intruder(service)
    if rights:
        assert not await answered(intruder, subject)
    else:
        await eventually(lambda: answered(intruder, subject))


@pytest.mark.parametrize(("service", "subject"), READ)
async def test_a_service_manages_no_stream_that_it_does_not_have_to(
    begin: Begin, rights: bool, service: str, subject: str
) -> None:
    secured, session = await begin(standing(rights))
    intruder = await secured.intruder(service)
    assert await answered(intruder, subject) is not rights


@pytest.mark.parametrize(("service", "subject"), LISTEN)
async def test_a_service_hears_nothing_that_is_for_others(
    begin: Begin, rights: bool, service: str, subject: str
) -> None:
    secured, _ = await begin(standing(rights))
    intruder = await secured.intruder(service)
    heard = asyncio.Event()

    async def hear(message: Any) -> None:
        heard.set()

    with suppress(BusError):
        await intruder.link.client.subscribe(subject, cb=hear)
    await intruder.link.flush()
    speaker = await secured.anybody()
    await speaker.link.publish(subject.replace("*", "x").replace(">", "a.b"), b"{}")
    await speaker.link.flush()
    await intruder.link.flush()
    if rights:
        assert not heard.is_set()
    else:
        async with asyncio.timeout(20):
            await heard.wait()


def test_every_service_is_looked_at() -> None:
    looked_at = {service for service, _ in (*PUBLISH, *ASK, *READ, *LISTEN)}
    assert looked_at == set(SERVICES)
