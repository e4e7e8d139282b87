"""Sessions' lives in bulk: the events of a few real ones, told of many sessions.

One life of each kind is led through the domain, so that its events, rows and payloads are
what the service would have made. Each further session is the same life under other names
and at another time, which costs a replacement in its text instead of a run of the domain.
"""

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from typing import Any

from streamspace_common.bus.envelope import event_headers
from streamspace_common.contracts.catalog import (
    Metadata,
    Protocol,
    ResourceAmounts,
    TemplateManifest,
    TemplateSpec,
)
from streamspace_common.contracts.events import (
    AgentEvent,
    CommandReceived,
    CoreEvent,
    SessionFailed,
    SessionHibernated,
    SessionStarted,
    SessionStopped,
)
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import ClusterId, TemplateId
from streamspace_common.contracts.sessions import Owner, Phase, PhaseTiming, Reason
from streamspace_session import domain
from streamspace_session.domain import Change, Order, Timing, Tracked
from streamspace_session.store.mapping import order_values, session_values

_TIMING = Timing()
_CLUSTER = ClusterId("lab")
_OWNER = Owner(user_id="usr-" + "ada0" * 8, username="ada")
_ACTOR = Actor(id=_OWNER.user_id, name="ada", address="192.0.2.7")
_BEGAN = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)
_HOUR = "2026-01-02T03:"
"""How every moment of a life begins: it lasts less than an hour."""
_SPAN = timedelta(days=21)
_BETWEEN = "\x00"
_PHASES = tuple(PhaseTiming(phase=phase, elapsed_ms=120.5 * n) for n, phase in enumerate(Phase, 1))


@dataclass(frozen=True)
class Life:
    """All events of one session, and its rows as they ended; times are within one hour."""

    events: tuple[tuple[CoreEvent, str, str], ...]
    """Each with its payload and its trace."""
    session: dict[str, Any]
    commands: tuple[dict[str, Any], ...]


class _Living:
    """Leads one session through its life, a second per step."""

    def __init__(self) -> None:
        self._now = _BEGAN
        self._told: list[tuple[CoreEvent, str]] = []
        self._orders: dict[str, Order] = {}
        manifest = TemplateManifest(
            metadata=Metadata(name="desktop"), spec=TemplateSpec(display_name="Linux desktop")
        )
        self.tracked, created = domain.create(
            domain.Asked(
                owner=_OWNER,
                template_id=TemplateId("starter_desktop"),
                template_name="desktop",
                digest="sha256:" + "0" * 64,
                manifest=manifest,
                resources=ResourceAmounts(cpu="1000m", memory="2Gi"),
                cpu_milli=1000,
                memory_bytes=2**31,
                persistent_home=True,
                idle_timeout=3600,
                max_duration=None,
                cluster=_CLUSTER,
                wanted_cluster=None,
                protocol=Protocol.VNC,
            ),
            actor=_ACTOR,
            now=self._now,
            timing=_TIMING,
        )
        self._trace = _trace()
        self._told.append((created, self._trace))
        self._keep(self.tracked)

    def user(self, act: Any) -> None:
        self._trace = _trace()
        self._take(act(self.tracked, actor=_ACTOR, now=self._tick(), timing=_TIMING))

    def agent(self, kind: type[AgentEvent], **more: Any) -> None:
        order = self.tracked.order
        event = kind(
            id=f"{order.id}.{order.attempt}.{kind.KIND}",
            at=self._now,
            cluster_id=_CLUSTER,
            instance="agent-1",
            session_id=self.tracked.session.id,
            generation=order.generation,
            command_id=order.id,
            **more,
        )
        self._take(domain.report(self.tracked, event, now=self._tick(), timing=_TIMING))

    def over(self) -> Life:
        return Life(
            tuple((event, event.model_dump_json(), trace) for event, trace in self._told),
            session_values(self.tracked),
            tuple(order_values(order, _CLUSTER) for order in self._orders.values()),
        )

    def _tick(self) -> datetime:
        self._now += timedelta(seconds=1, microseconds=1234)
        return self._now

    def _take(self, change: Change) -> None:
        self._told += [(event, self._trace) for event in change.events]
        self.tracked = change.after
        if change.replaced is not None:
            self._orders[change.replaced.id] = change.replaced
        self._keep(change.after)

    def _keep(self, tracked: Tracked) -> None:
        self._orders[tracked.order.id] = tracked.order


def _trace() -> str:
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def _started(life: _Living) -> None:
    life.agent(CommandReceived)
    life.agent(SessionStarted, phases=_PHASES)


def _ended(life: _Living) -> None:
    life.user(domain.delete)
    life.agent(CommandReceived)
    life.agent(SessionStopped)


def kinds() -> list[Life]:
    """A used and ended session, one that rested twice, one that failed, one that runs on."""
    short, long, failed, running = (_Living() for _ in range(4))
    _started(short)
    _ended(short)
    _started(long)
    for _ in range(2):
        long.user(domain.hibernate)
        long.agent(CommandReceived)
        long.agent(SessionHibernated)
        long.user(domain.wake)
        _started(long)
    _ended(long)
    failed.agent(CommandReceived)
    failed.agent(SessionFailed, reason=Reason.NO_SPACE, message="The disk for homes is full.")
    failed.agent(SessionStopped)
    _started(running)
    return [one.over() for one in (short, long, failed, running)]


class Crowd:
    """As many sessions as it takes for so many events, in the order the stream has them."""

    def __init__(self, events: int) -> None:
        lives = kinds()
        each = sum(len(life.events) for life in lives)
        self._lives = list(islice(cycle(lives), -(-events * len(lives) // each)))
        self._texts = {id(life): _text(life) for life in lives}
        # No two alike: of so many, two by chance would be.
        names = secrets.SystemRandom().sample(range(16**8), len(self._lives))
        self._names = [f"{name:08x}" for name in names]
        # The newest began two hours ago, the oldest three weeks before that.
        newest = datetime.now(UTC) - timedelta(hours=2)
        step = _SPAN / len(self._lives)
        self._hours = [
            (newest - step * (len(self._lives) - n)).strftime("%Y-%m-%dT%H:")
            for n in range(len(self._lives))
        ]

    @property
    def sessions(self) -> int:
        return len(self._lives)

    def told(self) -> Iterator[tuple[str, dict[str, str], bytes]]:
        """Every event: subject, headers, payload."""
        for number, life in enumerate(self._lives):
            parts = iter(self._rename(number, self._texts[id(life)]).split(_BETWEEN))
            for subject, headers, payload in zip(parts, parts, parts, strict=True):
                yield subject, json.loads(headers), payload.encode()

    def session_rows(self) -> Iterator[dict[str, Any]]:
        for number, life in enumerate(self._lives):
            yield self._renamed(number, life.session)

    def command_rows(self) -> Iterator[dict[str, Any]]:
        for number, life in enumerate(self._lives):
            for row in life.commands:
                yield self._renamed(number, row)

    def _renamed(self, number: int, row: dict[str, Any]) -> dict[str, Any]:
        return {name: self._value(number, value) for name, value in row.items()}

    def _value(self, number: int, value: Any) -> Any:
        if isinstance(value, str):
            return self._rename(number, value)
        if isinstance(value, datetime):
            return datetime.fromisoformat(self._rename(number, value.isoformat()))
        return value

    def _rename(self, number: int, text: str) -> str:
        life = self._lives[number]
        session = str(life.session["id"])
        text = text.replace(session, f"{session[:-8]}{self._names[number]}")
        text = text.replace(_HOUR, self._hours[number])
        for n, row in enumerate(life.commands):
            text = text.replace(str(row["id"]), f"cmd-{number * 16 + n:08x}")
        for event, _, _ in life.events:
            text = text.replace(event.id, f"{number:08x}{event.id[8:]}")
        return text


def _text(life: Life) -> str:
    """All of a life as one text, so that it is renamed at one go."""
    return _BETWEEN.join(
        part
        for event, payload, trace in life.events
        for part in (
            event.subject,
            json.dumps(event_headers(event, source="session", trace=trace)),
            payload,
        )
    )
