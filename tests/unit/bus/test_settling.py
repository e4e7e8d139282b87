"""Settling a delivery while a consumer's servers elect a leader."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from streamspace_common.bus import settling
from streamspace_common.bus.errors import BusError, BusUnavailableError, NobodyAnswersError
from streamspace_common.bus.link import Link
from streamspace_common.bus.settling import settle


class Server:
    """Answers each request with the next of what it was told; then everything is well."""

    def __init__(self, *answers: BusError) -> None:
        self._answers = list(answers)
        self.settled: list[tuple[str, bytes]] = []
        self.asked = 0

    async def request(self, subject: str, payload: bytes, **_: Any) -> None:
        self.asked += 1
        if self._answers:
            raise self._answers.pop(0)
        self.settled.append((subject, payload))


async def settling_with(server: Server, reply: Callable[[], str] = lambda: "first") -> None:
    await settle(cast(Link, server), reply, b"+ACK", "cmd.lab.one")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "_PAUSE", 0.0)


async def test_a_delivery_is_settled_once_its_consumer_has_a_leader_again() -> None:
    server = Server(NobodyAnswersError("no leader"), NobodyAnswersError("no leader"))
    await settling_with(server)
    assert server.settled == [("first", b"+ACK")]


async def test_a_delivery_that_came_again_meanwhile_is_settled_by_its_newest_try() -> None:
    replies = ["first", "again"]
    server = Server(NobodyAnswersError("no leader"))
    await settling_with(server, lambda: replies.pop(0))
    assert server.settled == [("again", b"+ACK")]


async def test_what_the_server_refuses_is_left_to_be_delivered_again() -> None:
    server = Server(BusUnavailableError("no answer in time"))
    await settling_with(server)
    assert (server.settled, server.asked) == ([], 1)


async def test_a_consumer_that_is_gone_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settling, "PATIENCE", 0.0)
    server = Server(*[NobodyAnswersError("no such consumer")] * 100)
    await settling_with(server)
    assert (server.settled, server.asked) == ([], 1)
