"""`Bus`: what a service sees of NATS.

A facade over one supervised connection: publish, ask, answer, subscribe, and read
streams. Consuming a durable is `PullLoop` (consume.py); making streams and durables
is `provision` (provision.py).
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from streamspace_common.bus import inspection, publishing, requests
from streamspace_common.bus.encryption import encryption
from streamspace_common.bus.envelope import TRACE, TYPE, core_headers, event_headers
from streamspace_common.bus.identity import Identity
from streamspace_common.bus.inspection import ConsumerLag
from streamspace_common.bus.link import PING_INTERVAL, Link
from streamspace_common.bus.publishing import Stored
from streamspace_common.bus.requests import Served
from streamspace_common.bus.subscriptions import CoreHandler, Subscription
from streamspace_common.bus.tail import RawMessage, StartAt, StreamMessage, tail, tail_raw
from streamspace_common.contracts.base import Message
from streamspace_common.contracts.events import Event
from streamspace_common.contracts.ids import ClusterId, SessionId
from streamspace_common.contracts.requests import (
    ClusterMethod,
    Method,
    MethodForClusters,
    Reply,
    Request,
)
from streamspace_common.contracts.streams import COMMANDS
from streamspace_common.contracts.subjects import cluster_commands
from streamspace_common.contracts.subjects import command as command_subject
from streamspace_common.runtime.proxies import Proxies
from streamspace_common.runtime.tracing import Kind, span

Handlers = Mapping[Method[Any, Any], requests.Handler]
HandlersForClusters = Mapping[MethodForClusters[Any, Any], requests.ClusterHandler]
ClusterHandlers = Mapping[ClusterMethod[Any, Any], requests.Handler]


class Bus:
    """One connection of one service; shared by everything in its process."""

    def __init__(self, link: Link) -> None:
        self.link = link
        """For the other modules of this package."""

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        name: str,
        credentials: Path | Identity | None = None,
        ca_file: Path | None = None,
        inbox: str = "_INBOX",
        on_closed: Callable[[], None] | None = None,
        on_refused: Callable[[], None] | None = None,
        ping_interval: int = PING_INTERVAL,
        proxies: Proxies | None = None,
        patience: float | None = None,
    ) -> Self:
        """Connect, waiting for the server as long as it takes.

        Args:
            url: one server, or several of a cluster separated by commas; all of them
                `tls://`, all `wss://` (through a WebSocket), or none.
            name: shown in the server's monitoring, for instance `session/host-1`.
            credentials: a `.creds` file, which is read again at each reconnect, or an
                identity that somebody renews.
            ca_file: certificate authorities trusted for TLS besides the system's.
            inbox: prefix of this client's inboxes: `Permissions.inbox` of its role.
            on_closed: called when the client gave up for good; end the process then.
            on_refused: called each time that the server refuses the credential.
            ping_interval: seconds between checks that the server still answers.
            proxies: the ways to a `wss://` server; straight there by default.
            patience: seconds to wait for the server; None for ever.

        Raises:
            FatalError: some addresses are encrypted and others are not, or `ca_file` holds
                no certificate that can be read.
            CredentialRefusedError: with `patience`: the server does not take the credential.
            BusUnavailableError: with `patience`: it is over.
        """
        return cls(
            await Link.open(
                url,
                name=name,
                credentials=credentials,
                encryption=encryption(url, ca_file),
                inbox=inbox,
                on_closed=on_closed,
                on_refused=on_refused,
                ping_interval=ping_interval,
                proxies=proxies,
                patience=patience,
            )
        )

    @property
    def connected(self) -> bool:
        """Whether the server is reachable at this moment (readiness)."""
        return self.link.connected

    async def drain(self) -> None:
        """Finish what was received, send what is left, and close."""
        await self.link.drain()

    async def close(self) -> None:
        await self.link.close()

    async def show_newer_credential(self) -> None:
        """Connect anew with the identity's newest token; see `Link.show_newer_credential`."""
        await self.link.show_newer_credential()

    # Publishing.

    async def publish_event(
        self, event: Event, *, source: str, trace: str | None = None, timeout: float = 5.0
    ) -> Stored:
        """Store an event; `source` is CloudEvents' `source`, for instance `agent/lab`.

        Raises:
            BusUnavailableError: not stored, or not known to be; publish it again with
                the same id.
            MessageTooLargeError: it never will be.
        """
        return await self.publish(
            event.subject,
            event.to_json(),
            event_headers(event, source=source, trace=trace),
            timeout=timeout,
        )

    async def publish(
        self,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str],
        *,
        expected_last_subject_sequence: int | None = None,
        timeout: float = 5.0,
    ) -> Stored:
        """Store one message in whichever stream takes `subject`.

        Args:
            subject: a subject of `contracts.subjects`.
            payload: the message's JSON.
            headers: see `envelope`; `Nats-Msg-Id` makes a retry harmless.
            expected_last_subject_sequence: refuse when the subject's newest message is
                another one; 0 stands for none at all.
            timeout: seconds, waiting for a connection included.

        Raises:
            WrongLastSequenceError: the expectation does not hold.
            BusUnavailableError: not stored, or not known to be.
            MessageTooLargeError: larger than the stream or the server takes.
            ApiError: the stream refuses it for another reason.
        """
        kind, parent = headers.get(TYPE) or "message", headers.get(TRACE)
        with span(f"publish {kind}", Kind.PRODUCER, parent=parent, subject=subject) as traced:
            if traced.traceparent:
                # Whoever takes it goes on from here, not from where it was written.
                headers = {**headers, TRACE: traced.traceparent}
            return await publishing.store(
                self.link,
                subject,
                payload,
                headers,
                expected_last_subject_sequence=expected_last_subject_sequence,
                timeout=timeout,
            )

    async def publish_core(self, subject: str, message: Message) -> None:
        """Send to whoever listens right now; nothing is stored.

        Raises:
            BusUnavailableError: there is no connection.
        """
        await self.link.publish(subject, message.to_json(), headers=core_headers(message))

    # Requests.

    async def call(
        self, method: Method[Request, Reply], request: Request, *, timeout: float = 5.0
    ) -> Reply:
        """Ask a service; `timeout` in seconds.

        Raises:
            ProblemError: what the service raised, or `service-unavailable` (with
                `retry_after`) when nobody answers.
        """
        return await requests.call(
            self.link, method.subject, request, method.reply, timeout=timeout
        )

    async def call_unread(
        self, method: Method[Request, Reply], request: Request, *, timeout: float = 5.0
    ) -> bytes:
        """Ask a service and pass its answer on: the JSON of `method.reply`, not looked into.

        Raises as `call` does.
        """
        return await requests.call_unread(self.link, method.subject, request, timeout=timeout)

    async def call_cluster(
        self,
        method: ClusterMethod[Request, Reply],
        cluster: ClusterId,
        request: Request,
        *,
        timeout: float = 10.0,
    ) -> Reply:
        """Ask any live agent of a cluster; raises as `call` does."""
        return await requests.call(
            self.link,
            method.subject(cluster),
            request,
            method.reply,
            timeout=timeout,
            cluster=cluster,
        )

    async def serve(self, name: str, handlers: Handlers, *, concurrency: int = 64) -> Served:
        """Answer a service's methods, sharing the work with its other replicas.

        A request that does not validate is answered with `invalid-request`, a
        `ProblemError` with its problem, and any other exception with `internal` and
        the id it was logged under.
        """
        served = Served(self.link, name, concurrency)
        await served.start(
            {m.name: (m.subject, m.request, handler) for m, handler in handlers.items()}
        )
        return served

    async def serve_clusters(
        self, name: str, handlers: HandlersForClusters, *, concurrency: int = 64
    ) -> Served:
        """Answer what clusters ask a service; each handler is told which one asks.

        As `serve`. The subject says it, and a cluster can use its own only.
        """
        served = Served(self.link, name, concurrency)
        await served.start(
            {
                m.name: (m.any_subject, m.request, requests.FromCluster(handler))
                for m, handler in handlers.items()
            }
        )
        return served

    async def ask(
        self,
        method: MethodForClusters[Request, Reply],
        cluster: ClusterId,
        request: Request,
        *,
        timeout: float = 5.0,
    ) -> Reply:
        """Ask a service as a cluster; raises as `call` does."""
        return await requests.call(
            self.link, method.subject(cluster), request, method.reply, timeout=timeout
        )

    async def serve_cluster(
        self, cluster: ClusterId, handlers: ClusterHandlers, *, concurrency: int = 64
    ) -> Served:
        """Answer requests to a cluster's agents; any one of its replicas gets each."""
        served = Served(self.link, f"agent-{cluster}", concurrency)
        await served.start(
            {m.name: (m.subject(cluster), m.request, handler) for m, handler in handlers.items()}
        )
        return served

    async def subscribe(
        self, subject: str, handler: CoreHandler, *, queue: str = "", pending_limit: int = 8192
    ) -> Subscription:
        """Hear core messages, one after the other.

        More than `pending_limit` waiting messages are dropped with a warning. With a
        `queue`, each message goes to one member of the group only.
        """
        subscription = Subscription(self.link, subject, handler)
        await subscription.start(queue, pending_limit)
        return subscription

    # Streams.

    def tail(
        self, stream: str, filters: Sequence[str], *, start: StartAt
    ) -> AsyncGenerator[StreamMessage]:
        """Read a stream in order, without gaps, through server restarts; never ends.

        Close it when leaving early: `async with contextlib.aclosing(bus.tail(...))`.
        """
        return tail(self.link, stream, filters, start)

    def tail_raw(
        self, stream: str, filters: Sequence[str], *, start: StartAt
    ) -> AsyncGenerator[list[RawMessage]]:
        """The same, as bytes and many at a time: for whoever reads a million messages."""
        return tail_raw(self.link, stream, filters, start)

    async def last_sequence(self, stream: str) -> int:
        """Sequence of the stream's newest message; 0 when it never held one."""
        return await inspection.last_sequence(self.link, stream)

    async def consumer_lag(self, stream: str, durable: str) -> ConsumerLag:
        """How far a durable is.

        Raises:
            ApiError: with `is_missing` when there is no such durable.
        """
        return await inspection.consumer_lag(self.link, stream, durable)

    async def stream_bounds(self, stream: str) -> tuple[int, int]:
        """The first and the last sequence that the stream holds."""
        return await inspection.bounds(self.link, stream)

    async def next_message(self, stream: str, subject: str, sequence: int) -> StreamMessage | None:
        """The first message from `sequence` on that matches; None when there is none."""
        return await inspection.next_of(self.link, stream, subject, sequence)

    async def message_at(self, stream: str, sequence: int) -> StreamMessage | None:
        """One stored message; None when the stream has replaced or removed it."""
        return await inspection.message_at(self.link, stream, sequence)

    async def newest_command(self, cluster: ClusterId, session: SessionId) -> StreamMessage | None:
        """The command a session's agent has to obey, while the stream holds one."""
        return await inspection.newest(self.link, COMMANDS.name, command_subject(cluster, session))

    async def purge_cluster(self, cluster: ClusterId) -> int:
        """Forget every command for a cluster; returns how many there were."""
        return await inspection.purge_subject(self.link, COMMANDS.name, cluster_commands(cluster))

    async def purge_commands(self, cluster: ClusterId, session: SessionId) -> int:
        """Forget a session's command; returns how many there were (0 or 1)."""
        return await inspection.purge_subject(
            self.link, COMMANDS.name, command_subject(cluster, session)
        )
