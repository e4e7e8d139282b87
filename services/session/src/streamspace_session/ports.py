"""What the handlers need of the world outside, in their own words.

`store` implements the transaction and its parts on PostgreSQL, `consumers` the rest on
the bus. Everything inside one `Transaction` is committed together or not at all.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from streamspace_common.contracts.catalog import TemplateManifest
from streamspace_common.contracts.events import (
    CoreEvent,
    TemplatePublished,
    TemplateWithdrawn,
    UserChanged,
)
from streamspace_common.contracts.ids import ClusterId, CommandId, SessionId, TemplateId, UserId
from streamspace_common.contracts.sessions import SessionState, ViewerRole
from streamspace_session.cluster_ports import ClusterAccess, Clusters
from streamspace_session.domain import Change, Message, Order, Tracked
from streamspace_session.letter_ports import DeadLetters, History
from streamspace_session.policy.quotas import Usage


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A page of sessions, newest first; `after` is where the page before ended."""

    owner: UserId | None
    states: tuple[SessionState, ...]
    include_final: bool
    template: TemplateId | None
    cluster: ClusterId | None
    after: tuple[datetime, SessionId] | None
    limit: int


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of sessions, each written as JSON; `end` is where it ends if there are more."""

    items: tuple[bytes, ...]
    end: tuple[datetime, SessionId] | None


@dataclass(frozen=True, slots=True)
class Due:
    """Which kinds of work wait for the sweeper right now."""

    overdue: bool
    aged: bool
    out_of_sight: bool
    unplaced: bool
    letters: bool = False


class Sessions(Protocol):
    """Sessions with their newest commands. `lock...` methods keep rows until the commit."""

    async def get(self, session: SessionId) -> Tracked | None: ...

    async def lock(self, sessions: Collection[SessionId]) -> dict[SessionId, Tracked]:
        """Those that exist, locked in the order of their ids."""
        ...

    async def lock_cluster(
        self, cluster: ClusterId, named: Collection[SessionId]
    ) -> dict[SessionId, Tracked]:
        """All of a cluster that have not ended, and whichever of `named` exist."""
        ...

    async def lock_left(self, cluster: ClusterId, limit: int) -> list[Tracked]:
        """Of a cluster: those that have not ended, and those with an open command."""
        ...

    async def lock_overdue(self, limit: int) -> list[Tracked]:
        """Past their deadline; those another replica works on are skipped."""
        ...

    async def lock_aged(self, limit: int) -> list[Tracked]:
        """Idle for too long, or past their longest duration."""
        ...

    async def lock_out_of_sight(self, limit: int) -> list[Tracked]:
        """On clusters that are offline, and not yet shown as such."""
        ...

    async def lock_unplaced(self, limit: int) -> list[Tracked]:
        """Waiting for a cluster, the oldest first."""
        ...

    async def lock_delivered(self, cluster: ClusterId, sequence: int, limit: int) -> list[Tracked]:
        """Whose newest command counts as waiting although the stream has delivered so far."""
        ...

    async def waiting_clusters(self, longer: timedelta) -> list[ClusterId]:
        """Clusters with a command that has waited for longer than this."""
        ...

    async def insert(self, new: Sequence[Tracked]) -> None:
        """Keep new sessions with their first commands, and count what they hold."""
        ...

    async def save(self, changes: Sequence[Change]) -> None:
        """Keep what became of locked sessions, and free the room of those that ended."""
        ...

    async def touch(self, activity: Mapping[SessionId, timedelta]) -> None:
        """Somebody was active in these sessions so long ago."""
        ...

    async def orders(self, session: SessionId) -> list[Order]:
        """All commands of a session, the newest first."""
        ...

    async def home_is_shared(self, owner: UserId, but: SessionId) -> bool:
        """Whether another session of the owner uses the same home right now."""
        ...

    async def lock_usage(self, owners: Collection[UserId]) -> dict[UserId, Usage]:
        """What each owner holds.

        Until the commit, everybody else who counts these owners' sessions waits.
        """
        ...

    async def count_by_state(self) -> dict[tuple[SessionState, ClusterId | None], int]:
        """Sessions by state and cluster; None where no cluster is chosen yet."""
        ...

    async def forget_ended(self, older: timedelta, limit: int) -> int:
        """Remove sessions that ended so long ago, with all that was kept of them.

        One that something still happens to, or whose dead letter is open, stays.
        Returns how many there were.
        """
        ...

    async def oldest_waiting(self) -> timedelta | None:
        """Age of the oldest command that no agent has taken."""
        ...

    async def due(self, letters_after: timedelta) -> Due: ...


@dataclass(frozen=True, slots=True)
class TemplateRecord:
    """A template of the projection, with its newest manifest."""

    id: TemplateId
    name: str
    digest: str
    unusable: str | None
    manifest: TemplateManifest


class Templates(Protocol):
    """The projection of the catalogs."""

    async def find(self, text_: str) -> list[TemplateRecord]:
        """The template with this id, or else all that have this name."""
        ...

    async def manifest(self, template: TemplateId, digest: str) -> TemplateManifest: ...

    async def kept(self, template: TemplateId, digest: str) -> bool:
        """Whether this manifest is still there; it goes with the last session that needs it."""
        ...

    async def publish(self, event: TemplatePublished, sequence: int, unusable: str | None) -> None:
        """Keep a template's news unless something newer (by stream sequence) is known."""
        ...

    async def withdraw(self, event: TemplateWithdrawn, sequence: int) -> None: ...


@dataclass(frozen=True, slots=True)
class TicketRecord:
    """A ticket as it is kept: everything but the ticket itself."""

    session_id: SessionId
    user_id: UserId
    username: str
    role: ViewerRole
    expires_at: datetime
    used_at: datetime | None = None
    traceparent: str | None = None
    """Of the request that asked for it, so that the stream it opens belongs to the same trace."""


class Accounts(Protocol):
    """The projection of user accounts: who may still be let in."""

    async def keep(self, event: UserChanged, sequence: int) -> None:
        """Keep an account's news unless something newer (by stream sequence) is known."""
        ...

    async def disabled(self, user: UserId) -> bool:
        """Whether the account is known to be disabled; one never heard of is not."""
        ...


class Tickets(Protocol):
    async def issue(self, digest: bytes, ticket: TicketRecord) -> None: ...

    async def use(self, digest: bytes, session: SessionId) -> TicketRecord | None:
        """Use the ticket up. None when it is unknown, used, expired or another session's."""
        ...

    async def look(self, digest: bytes) -> TicketRecord | None:
        """For telling why a ticket was refused."""
        ...

    async def admitted(self, session: SessionId, user: UserId) -> bool:
        """Whether the user ever used a ticket for the session."""
        ...


@dataclass(frozen=True, slots=True, order=True)
class RequestKey:
    """An idempotency key and whose it is."""

    owner: UserId
    key: str


@dataclass(frozen=True, slots=True)
class Remembered:
    """An earlier request with the same idempotency key."""

    request_hash: bytes
    session_id: SessionId
    command_id: CommandId


class Requests(Protocol):
    """Requests that were answered before."""

    async def claim(self, requests: Mapping[RequestKey, bytes]) -> dict[RequestKey, Remembered]:
        """Reserve keys for requests, given with their hashes; those used before, and for what.

        Waits for another transaction that is just using one of them.
        """
        ...

    async def remember(self, used: Mapping[RequestKey, Remembered]) -> None:
        """Keep what claimed keys were used for."""
        ...

    async def release(self, keys: Collection[RequestKey]) -> None:
        """Give claimed keys back whose requests were refused."""
        ...


class Places(Protocol):
    """Places in the event stream up to which something is known; older news have no effect."""

    async def furthest(self) -> int:
        """The greatest of them; 0 when there is none."""
        ...

    async def cut(self, last: int) -> None:
        """Have none be beyond the stream's end."""
        ...


class Transaction(Protocol):
    """One unit of work."""

    @property
    def sessions(self) -> Sessions: ...
    @property
    def clusters(self) -> Clusters: ...
    @property
    def access(self) -> ClusterAccess: ...
    @property
    def templates(self) -> Templates: ...
    @property
    def accounts(self) -> Accounts: ...
    @property
    def places(self) -> Places: ...
    @property
    def letters(self) -> DeadLetters: ...
    @property
    def history(self) -> History: ...
    @property
    def tickets(self) -> Tickets: ...
    @property
    def requests(self) -> Requests: ...

    async def now(self) -> datetime:
        """The database's clock, the same moment throughout the transaction."""
        ...

    async def first_times(self, message_ids: Iterable[str]) -> set[str]:
        """Record messages as acted upon; those that are new."""
        ...

    def tell(self, event: CoreEvent) -> None:
        """Publish the event once this has committed."""
        ...

    def send(self, command: Message) -> None:
        """Send the command once this has committed."""
        ...

    async def post(self, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Publish a copy of a message once this has committed."""
        ...

    async def prune(self, limits: "Retention") -> None:
        """Forget what is too old to matter."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long things are remembered that nobody needs for ever."""

    idempotency: timedelta = timedelta(hours=24)
    inbox: timedelta = timedelta(days=2)
    tickets: timedelta = timedelta(hours=1)
    agents: timedelta = timedelta(hours=1)
    letters: timedelta = timedelta(days=30)
    history: timedelta = timedelta(days=365)
    removed: timedelta = timedelta(days=60)
    """Of a removed cluster its name, while the stream could still bring older news of it."""
    ended: timedelta = timedelta(days=90)


class IdTakenError(Exception):
    """A fresh id was given before. Eight hex digits do that; with others it works."""


class Store(Protocol):
    async def page(self, query: ListQuery) -> Listed:
        """Sessions to look at, without a transaction around it.

        Raises:
            ProblemError: `service-unavailable` when the database is away.
        """
        ...

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Commits at the end of the block.

        Raises:
            ProblemError: `service-unavailable` when the database is away.
            IdTakenError: a new session or command has the id of an older one.
        """
        ...


class Durables(Protocol):
    """Makes the consumer that a cluster's agents share, and what they read."""

    async def ensure(self, cluster: ClusterId) -> None: ...

    async def clear(self, cluster: ClusterId) -> None:
        """Remove the consumer, and every command for the cluster from the stream.

        Raises:
            BusError: it is not done, or not known to be.
        """
        ...

    async def delivered(self, cluster: ClusterId) -> int:
        """The furthest place in the command stream that was delivered to its agents.

        Raises:
            ProblemError: `service-unavailable` when the bus is away.
        """
        ...


Listening = Callable[[], float]
"""Seconds for which we have been able to hear heartbeats without interruption."""
