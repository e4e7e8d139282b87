"""Each known attack on the bus: it fails as we ship it, and works without what stops it.

An attacker holds the working credential of cluster `lab`. A row names an attack and the
defences that stop it. Each attack runs with all defences; then with each one of its own
standing alone, which has to be enough; and with all of its own taken away, where it has to
succeed: a test that could not fail would prove nothing.

`docs/reference/threats.md` tells each row in words.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.secured import ALL, EVERYTHING, Defence, Secured, body

from streamspace_agent.reports import Reporter
from streamspace_common.bus import ApiError, Bus, BusError, Identity
from streamspace_common.bus.credentials import Issuer, mint_user
from streamspace_common.bus.signing import KeyKind, new_seed
from streamspace_common.contracts.clusters import OpenTunnel, TunnelOpened
from streamspace_common.contracts.commands import StopSession
from streamspace_common.contracts.identity import system_actor
from streamspace_common.contracts.ids import ClusterId, SessionId, new_command_id
from streamspace_common.contracts.problems import ProblemError
from streamspace_common.contracts.requests import AgentMethods, AuthMethods, Empty, KeySet
from streamspace_common.contracts.streams import COMMANDS, EVENTS, agent_durable
from streamspace_common.contracts.subjects import command
from streamspace_common.testing.waiting import eventually

LAB, OTHER = ClusterId("lab"), ClusterId("other")
SESSION = SessionId("ada-desktop-01234567")
VICTIM = command(OTHER, SESSION)
ALONE = f"evt.{LAB}.session.{SESSION}.started"
"""What the attacker may publish."""
THEIRS = f"evt.{OTHER}.session.{SESSION}.started"
FOREIGN_DURABLE = agent_durable(OTHER).name


@dataclass
class World:
    """Everybody, and what the attacker got to see."""

    secured: Secured
    session: Bus
    attacker: Bus
    before: int = 0
    heard: list[bytes] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    async def ask(self, subject: str, payload: bytes = b"", **more: Any) -> None:
        """Ask and keep the answer; a refusal is none."""
        with suppress(BusError):
            answer = await self.attacker.link.request(subject, payload, timeout=2, **more)
            if b'"error"' not in answer.data:
                self.heard.append(answer.data)

    async def listen(self, subject: str) -> None:
        async def hear(message: Any) -> None:
            self.heard.append(message.payload)

        with suppress(BusError):
            await self.attacker.subscribe(subject, hear)
        await self.attacker.link.flush()

    async def say(self, subject: str, payload: bytes = b"", **more: Any) -> None:
        with suppress(BusError):
            await self.attacker.link.publish(subject, payload, **more)
        # A server reads one connection in order: after this it has seen the attack.
        await self.attacker.link.flush()
        await self.session.link.flush()

    async def consumer(self, name: str) -> dict[str, Any] | None:
        try:
            info = await self.session.link.api(f"CONSUMER.INFO.{COMMANDS.name}.{name}")
        except ApiError:
            return None
        return info

    async def stored(self, subject: str) -> Any:
        with suppress(ApiError):
            found = await self.session.link.api(
                f"STREAM.MSG.GET.{EVENTS.name}", {"last_by_subj": subject}
            )
            return found["message"]
        return None


Step = Callable[[World], Awaitable[Any]]


@dataclass(frozen=True)
class Attack:
    """`act` is what the attacker does, `worked` whether it came of it what they wanted."""

    name: str
    act: Step
    worked: Step
    stopped_by: frozenset[Defence]
    prepare: Step | None = None
    newer_acknowledgements: bool = False


# ---- Another cluster's commands ---------------------------------------------------------------


async def command_is_replaced(world: World) -> bool:
    newest = await world.session.newest_command(OTHER, SESSION)
    return newest is None or newest.sequence != world.before


async def lead_an_acknowledgement_there(world: World) -> None:
    await world.say(ALONE, b"{}", reply=VICTIM)


async def publish_a_command(world: World) -> None:
    await world.say(VICTIM, b"{}")


async def pull_them(world: World) -> None:
    inbox = world.attacker.link.client.new_inbox()
    await world.listen(inbox)
    await world.say(
        f"$JS.API.CONSUMER.MSG.NEXT.{COMMANDS.name}.{FOREIGN_DURABLE}",
        b'{"batch": 1, "no_wait": true}',
        reply=inbox,
    )


async def commands_were_handed_out(world: World) -> bool:
    info = await world.consumer(FOREIGN_DURABLE)
    return info is None or info["num_ack_pending"] > 0


async def victim_takes_its_command(world: World) -> None:
    """And does not settle it; the attacker knows by what subject it would be."""
    victim = await world.secured.agent(OTHER)
    taken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    inbox = victim.link.client.new_inbox()

    async def take(message: Any) -> None:
        if message.reply and not taken.done():
            taken.set_result(message.reply)

    await victim.link.client.subscribe(inbox, cb=take)
    await victim.link.publish(
        f"$JS.API.CONSUMER.MSG.NEXT.{COMMANDS.name}.{FOREIGN_DURABLE}", b'{"batch": 1}', reply=inbox
    )
    async with asyncio.timeout(20):
        subject = await taken
    world.facts["settle"] = subject


async def settle_it(world: World) -> None:
    await world.say(world.facts["settle"], b"+ACK")


async def settle_it_by_the_newer_form(world: World) -> None:
    assert world.facts["settle"].split(".")[4] == COMMANDS.name, world.facts["settle"]
    await settle_it(world)


async def it_is_settled(world: World) -> bool:
    info = await world.consumer(FOREIGN_DURABLE)
    return info is not None and info["num_ack_pending"] == 0


async def make_a_consumer(world: World) -> None:
    config = {"durable_name": "mine", "ack_policy": "none", "filter_subject": "cmd.other.>"}
    await world.ask(
        f"$JS.API.CONSUMER.CREATE.{COMMANDS.name}.mine.cmd.other.>",
        json.dumps({"stream_name": COMMANDS.name, "config": config}).encode(),
    )


async def there_is_a_consumer(world: World) -> bool:
    return await world.consumer("mine") is not None


async def change_the_consumer(world: World) -> None:
    info = await world.consumer(FOREIGN_DURABLE)
    assert info is not None
    text = {"stream_name": COMMANDS.name, "config": {**info["config"], "max_deliver": 1}}
    await world.ask(
        f"$JS.API.CONSUMER.CREATE.{COMMANDS.name}.{FOREIGN_DURABLE}.cmd.other.>",
        json.dumps(text).encode(),
    )


async def the_consumer_is_another(world: World) -> bool:
    info = await world.consumer(FOREIGN_DURABLE)
    return info is not None and info["config"]["max_deliver"] == 1


async def delete_the_consumer(world: World) -> None:
    await world.ask(f"$JS.API.CONSUMER.DELETE.{COMMANDS.name}.{FOREIGN_DURABLE}")


async def the_consumer_is_gone(world: World) -> bool:
    return await world.consumer(FOREIGN_DURABLE) is None


# ---- Another cluster's events, and everybody's -------------------------------------------------


async def an_event_is_there(world: World) -> None:
    await world.session.publish("evt.core.session.x.created", b"{}", {})


async def roll_up(world: World) -> None:
    await world.ask(ALONE, b"{}", headers={"Nats-Rollup": "all"})


async def history_is_gone(world: World) -> bool:
    return await world.stored("evt.core.session.x.created") is None


async def schedule_an_event(world: World) -> None:
    at = datetime.now(UTC) + timedelta(seconds=1)
    await world.ask(
        ALONE,
        b"{}",
        headers={"Nats-Schedule": f"@at {at:%Y-%m-%dT%H:%M:%SZ}", "Nats-Schedule-Target": THEIRS},
    )


async def publish_their_event(world: World) -> None:
    await world.ask(THEIRS, b"{}")


async def publish_as_the_control_plane(world: World) -> None:
    await world.ask("evt.core.session.x.forged", b"{}")


async def control_planes_event_is_forged(world: World) -> bool:
    return await world.stored("evt.core.session.x.forged") is not None


async def use_up_their_ids(world: World) -> None:
    """With all that is public about a session: its name, its generation, what will happen."""
    for guess in (guessable(SESSION, 1), f"{SESSION}.1.started", "cmd-00000000.1.started"):
        await world.ask(ALONE, b"{}", headers={"Nats-Msg-Id": guess})


async def their_report_is_lost(world: World) -> bool:
    victim = await world.secured.agent(OTHER)
    stop = StopSession(
        command_id=new_command_id(),
        session_id=SESSION,
        cluster_id=OTHER,
        generation=1,
        issued_at=datetime.now(UTC),
        deadline=datetime.now(UTC),
        actor=system_actor("session"),
    )
    said = Reporter(OTHER, "one").stopped(stop, datetime.now(UTC))
    shipped = Defence.IDS in world.secured.defences
    answer = await victim.link.request(
        said.subject,
        said.to_json(),
        headers={"Nats-Msg-Id": said.id if shipped else guessable(SESSION, 1)},
    )
    return bool(body(answer.data).get("duplicate"))


def guessable(session: SessionId, generation: int) -> str:
    """As ids would be, were they made of what everybody may know."""
    return f"{session}.{generation}.stopped"


async def beat_for_them(world: World) -> None:
    await world.say(f"hb.{OTHER}.forged", b"{}")


async def session_hears_beats(world: World) -> None:
    beats: list[str] = []

    async def hear(message: Any) -> None:
        beats.append(message.subject)

    await world.session.subscribe("hb.*.*", hear)
    world.facts["beats"] = beats


async def their_beat_is_heard(world: World) -> bool:
    return f"hb.{OTHER}.forged" in world.facts["beats"]


async def a_bucket_is_there(world: World) -> None:
    await world.session.link.api(
        "STREAM.CREATE.KV_presence",
        {"name": "KV_presence", "subjects": ["$KV.presence.>"], "allow_rollup_hdrs": True,
         "max_msgs_per_subject": 1, "retention": "limits", "storage": "file"},
    )  # fmt: skip
    keeper = await world.secured.anybody()
    await keeper.link.request("$KV.presence.other", b"online")


async def wipe_the_bucket(world: World) -> None:
    await world.ask("$KV.presence.lab", b"", headers={"Nats-Rollup": "all"})


async def the_bucket_is_empty(world: World) -> bool:
    with suppress(ApiError):
        await world.session.link.api(
            "STREAM.MSG.GET.KV_presence", {"last_by_subj": "$KV.presence.other"}
        )
        return False
    return True


# ---- What others say to each other -------------------------------------------------------------


async def listen_to_inboxes(world: World) -> None:
    for inbox in (f"_INBOX_{OTHER}.>", "_INBOX_session.>", "_INBOX.>"):
        await world.listen(inbox)
    victim = await world.secured.agent(OTHER)
    await victim.link.request(THEIRS, b"{}")
    await world.session.link.api("INFO")
    await world.attacker.link.flush()


async def listen_to_requests(world: World) -> None:
    await world.listen(f"rpc.{OTHER}.*")
    asker = await world.secured.service("vnc-proxy")
    with suppress(BusError):
        await asker.link.request(f"rpc.{OTHER}.open_tunnel", b"a secret", timeout=1)
    await world.attacker.link.flush()


async def answer_for_them(world: World) -> None:
    """With all that is known of a request of the relay's: how its subjects are made."""
    asker = await world.secured.service("vnc-proxy")
    victim = await world.secured.agent(OTHER)
    asked: asyncio.Queue[str] = asyncio.Queue()

    async def hear(message: Any) -> None:
        asked.put_nowait(message.reply)

    await victim.link.client.subscribe(f"rpc.{OTHER}.open_tunnel", cb=hear)
    await victim.link.flush()
    request = OpenTunnel(
        tunnel_id="t",
        secret="s",
        dial_url="ws://127.0.0.1:1",
        session_id=SESSION,
        port=5900,
        deadline=datetime.now(UTC),
    )
    forged = TunnelOpened(tunnel_id="t", instance="forged").to_json()
    asking = asyncio.create_task(
        asker.call_cluster(AgentMethods.OPEN_TUNNEL, OTHER, request, timeout=3)
    )
    async with asyncio.timeout(20):
        reply = await asked.get()
    await world.say(reply, forged)
    # What the attacker may say, in case that nobody looks who it is that answers.
    await world.say(reply.replace(f".{OTHER}.", f".{LAB}."), forged)
    with suppress(ProblemError):
        world.heard.append((await asking).to_json())


async def something_was_heard(world: World) -> bool:
    return bool(world.heard)


async def auth_answers(world: World) -> None:
    async def keys(request: Empty) -> KeySet:
        return KeySet(keys=())

    auth = await world.secured.service("auth")
    world.facts["served"] = await auth.serve("auth", {AuthMethods.JWKS: keys})


def asking(subject: str, payload: bytes = b"") -> Step:
    async def ask(world: World) -> None:
        await world.ask(subject, payload)

    return ask


# ---- The servers themselves --------------------------------------------------------------------


async def import_by_a_token_of_ones_own(world: World) -> None:
    """Own account, the other cluster's imports; signed by whom the attacker can have sign."""
    secured = world.secured
    enrolled, victim = secured.clusters[LAB], secured.clusters[OTHER]
    claims = secured.claims_of(enrolled)
    theirs = secured.claims_of(victim)["imports"]
    claims["imports"] = [{k: v for k, v in each.items() if k != "token"} for each in theirs]
    claims["signing_keys"] = [enrolled.keys.agents]
    operator = (
        new_seed(KeyKind.OPERATOR)
        if Defence.SIGNATURE in secured.defences
        else secured.trust.operator_signing_seed
    )
    with suppress(BusError):
        await secured.give(secured.signed(enrolled.account, LAB, claims, operator))
    loose = Identity.from_creds(
        mint_user(EVERYTHING, "x", Issuer(account=enrolled.account, signing_seed=enrolled.agents))
    )
    with suppress(BusError):
        bus = await secured.connect(loose, EVERYTHING.inbox, patience=5)
        with suppress(BusError):
            await bus.link.request(THEIRS, b"{}", timeout=2)


async def import_their_requests(world: World) -> None:
    """The same, to hear instead of to say."""
    secured = world.secured
    enrolled = secured.clusters[LAB]
    claims = secured.claims_of(enrolled)
    (heard,) = (each for each in claims["imports"] if each["type"] == "stream")
    claims["imports"] = [
        {**{k: v for k, v in heard.items() if k != "token"}, "subject": f"rpc.{OTHER}.*"}
    ]
    claims["signing_keys"] = [enrolled.keys.agents]
    await secured.give(secured.signed(enrolled.account, LAB, claims))
    loose = Identity.from_creds(
        mint_user(EVERYTHING, "x", Issuer(account=enrolled.account, signing_seed=enrolled.agents))
    )
    world.attacker = await secured.connect(loose, EVERYTHING.inbox, patience=5)
    await listen_to_requests(world)


async def their_event_is_stored(world: World) -> bool:
    return await world.stored(THEIRS) is not None


BOTH = frozenset({Defence.ACCOUNT, Defence.RIGHTS})
ATTACKS = [
    Attack("reply_subject", lead_an_acknowledgement_there, command_is_replaced, frozenset({Defence.ACCOUNT})),
    Attack("foreign_command", publish_a_command, command_is_replaced, BOTH),
    Attack("foreign_pull", pull_them, commands_were_handed_out, BOTH),
    Attack("foreign_acknowledgement", settle_it, it_is_settled, BOTH, victim_takes_its_command),
    Attack("foreign_acknowledgement_newer_form", settle_it_by_the_newer_form, it_is_settled, BOTH,
           victim_takes_its_command, newer_acknowledgements=True),
    Attack("consumer_creation", make_a_consumer, there_is_a_consumer, BOTH),
    Attack("consumer_change", change_the_consumer, the_consumer_is_another, BOTH),
    Attack("consumer_deletion", delete_the_consumer, the_consumer_is_gone, BOTH),
    Attack("rollup", roll_up, history_is_gone, frozenset({Defence.STREAMS}), an_event_is_there),
    Attack("schedule", schedule_an_event, their_event_is_stored, frozenset({Defence.STREAMS})),
    Attack("bucket_wipe", wipe_the_bucket, the_bucket_is_empty, BOTH, a_bucket_is_there),
    Attack("foreign_event", publish_their_event, their_event_is_stored, BOTH),
    Attack("control_plane_event", publish_as_the_control_plane, control_planes_event_is_forged, BOTH),
    Attack("foreign_heartbeat", beat_for_them, their_beat_is_heard, BOTH, session_hears_beats),
    Attack("forged_message_id", use_up_their_ids, their_report_is_lost, frozenset({Defence.IDS})),
    Attack("inbox_snooping", listen_to_inboxes, something_was_heard, BOTH),
    Attack("request_theft", listen_to_requests, something_was_heard, BOTH),
    Attack("foreign_answer", answer_for_them, something_was_heard, BOTH),
    Attack("stream_info", asking(f"$JS.API.STREAM.INFO.{COMMANDS.name}"), something_was_heard, BOTH),
    Attack("message_get", asking(f"$JS.API.STREAM.MSG.GET.{COMMANDS.name}", b'{"seq": 1}'), something_was_heard, BOTH),
    Attack("direct_get", asking(f"$JS.API.DIRECT.GET.{COMMANDS.name}.{VICTIM}"), something_was_heard, BOTH),
    Attack("stream_purge", asking(f"$JS.API.STREAM.PURGE.{COMMANDS.name}"), command_is_replaced, BOTH),
    Attack("service_discovery", asking("$SRV.PING"), something_was_heard, BOTH, auth_answers),
    Attack("service_call", asking(AuthMethods.JWKS.subject, b"{}"), something_was_heard, BOTH, auth_answers),
    Attack("foreign_import", import_by_a_token_of_ones_own, their_event_is_stored,
           frozenset({Defence.SIGNATURE, Defence.ACTIVATION})),
    Attack("foreign_requests_imported", import_their_requests, something_was_heard,
           frozenset({Defence.ACTIVATION})),
]  # fmt: skip
BY_NAME = {attack.name: attack for attack in ATTACKS}


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[Attack, frozenset[Defence]], Awaitable[World]]]:
    started: list[Secured] = []

    async def make(attack: Attack, defences: frozenset[Defence]) -> World:
        secured = Secured(
            tmp_path / f"nats-{len(started)}",
            defences=defences,
            newer_acknowledgements=attack.newer_acknowledgements,
        )
        secured.server.start()
        started.append(secured)
        await secured.enrol(LAB, OTHER)
        session = await secured.service("session")
        await secured.streams(session)
        stored = await session.publish(VICTIM, b"{}", {})
        world = World(secured, session, await secured.attacker(LAB), stored.sequence)
        if attack.prepare is not None:
            await attack.prepare(world)
        return world

    yield make
    for secured in started:
        secured.server.stop()


Begin = Callable[[Attack, frozenset[Defence]], Awaitable[World]]


@pytest.fixture
async def opened() -> AsyncIterator[list[World]]:
    """Worlds whose connections are closed with the test."""
    worlds: list[World] = []
    yield worlds
    for world in worlds:
        if served := world.facts.get("served"):
            await served.stop()
        await world.secured.close()


async def carried_out(
    begin: Begin, opened: list[World], name: str, without: frozenset[Defence]
) -> World:
    attack = BY_NAME[name]
    world = await begin(attack, ALL - without)
    opened.append(world)
    await attack.act(world)
    return world


@pytest.mark.parametrize("name", BY_NAME)
async def test_an_attack_fails_as_we_ship_it(begin: Begin, opened: list[World], name: str) -> None:
    world = await carried_out(begin, opened, name, frozenset())
    assert not await BY_NAME[name].worked(world)


@pytest.mark.parametrize(
    ("name", "only"),
    [
        (attack.name, one)
        for attack in ATTACKS
        if len(attack.stopped_by) > 1
        for one in sorted(attack.stopped_by, key=str)
    ],
)
async def test_each_of_its_defences_is_enough(
    begin: Begin, opened: list[World], name: str, only: Defence
) -> None:
    without = BY_NAME[name].stopped_by - {only}
    world = await carried_out(begin, opened, name, without)
    assert not await BY_NAME[name].worked(world)


@pytest.mark.parametrize("name", BY_NAME)
async def test_without_its_defences_an_attack_works(
    begin: Begin, opened: list[World], name: str
) -> None:
    attack = BY_NAME[name]
    world = await carried_out(begin, opened, name, attack.stopped_by)

    async def works() -> bool:
        return bool(await attack.worked(world))

    try:
        await eventually(works)
    except AssertionError:
        # On a busy machine an answer may come too late; attackers try twice.
        await attack.act(world)
        await eventually(works, message=f"{name} works where nothing stops it")
