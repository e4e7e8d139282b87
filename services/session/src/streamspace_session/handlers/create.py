"""Creating sessions: template, quota, placement and first command in one transaction.

Every creation needs the row of its owner's usage and those of the clusters to itself, so
creations that come side by side would wait for each other's commits. They are taken in
batches instead, and a batch is one transaction: what is read and locked once serves them
all, each is decided in the order it came, and what is refused leaves nothing behind.

The order of the steps is the order of the locks: the idempotency keys, the owners'
usage, then the clusters. What costs time without needing a lock is done before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from streamspace_common.contracts.identity import user_actor
from streamspace_common.contracts.ids import ClusterId, UserId
from streamspace_common.contracts.problems import Code, ProblemError
from streamspace_common.contracts.requests import CreateSession, SessionAccepted
from streamspace_common.contracts.sessions import Owner
from streamspace_common.runtime.tracing import current_traceparent, tracing
from streamspace_session.batching import Batches
from streamspace_session.domain import Asked, Timing, Tracked, create, reach
from streamspace_session.handlers.effects import send_newest, with_fresh_ids
from streamspace_session.handlers.requested import (
    demand_of,
    fingerprint,
    refuse_unprintable,
    resources_of,
    usable,
)
from streamspace_session.policy import placement, quotas
from streamspace_session.policy.placement import Candidate, NoClusterError, Overcommit, requirement
from streamspace_session.policy.quantities import Demand
from streamspace_session.policy.quotas import Quota, QuotaExceededError, Usage
from streamspace_session.ports import (
    Remembered,
    RequestKey,
    Store,
    TemplateRecord,
    Transaction,
)

BATCH = 50
"""Creations per transaction: few enough that the first does not wait long for the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What an installation allows; durations in seconds, None for never."""

    timing: Timing
    quota: Quota
    overcommit: Overcommit
    idle_timeout: int | None = None
    max_duration: int | None = None


@dataclass(slots=True)
class _Waiting:
    """A request, and the answer its batch has for it."""

    request: CreateSession
    traceparent: str | None
    answer: SessionAccepted | ProblemError | None = None

    @property
    def key(self) -> RequestKey | None:
        key = self.request.idempotency_key
        return None if key is None else RequestKey(self.request.principal.user_id, key)


class Creation:
    """Answers `create`."""

    def __init__(self, store: Store, rules: Rules) -> None:
        self._store = store
        self._rules = rules
        self._batches = Batches(self._create_all, limit=BATCH)

    async def create(self, request: CreateSession) -> SessionAccepted:
        refuse_unprintable(request)
        waiting = _Waiting(request, current_traceparent())
        await with_fresh_ids(lambda: self._batches.submit(waiting))
        if isinstance(waiting.answer, SessionAccepted):
            return waiting.answer
        raise waiting.answer or RuntimeError("a batch left a request unanswered")

    async def _create_all(self, batch: Sequence[_Waiting]) -> None:
        async with self._store.transaction() as tx:
            keyed = {one.key: fingerprint(one.request) for one in batch if one.key is not None}
            known = await tx.requests.claim(keyed) if keyed else {}
            found = {
                text: await tx.templates.find(text)
                for text in dict.fromkeys(one.request.template for one in batch)
            }
            owners = {one.request.principal.user_id for one in batch}
            work = _Work(
                self._rules,
                found,
                known,
                await tx.sessions.lock_usage(owners),
                await tx.clusters.candidates(),
            )
            for one in batch:
                with tracing(one.traceparent):
                    try:
                        one.answer = await work.decide(tx, one)
                    except ProblemError as problem:
                        one.answer = problem
            await work.keep(tx)
            if unused := keyed.keys() - work.known.keys():
                await tx.requests.release(unused)


@dataclass
class _Work:
    """What a batch has locked and read, moved on by each creation that is accepted."""

    rules: Rules
    found: dict[str, list[TemplateRecord]]
    known: dict[RequestKey, Remembered]
    usage: dict[UserId, Usage]
    candidates: list[Candidate]
    created: list[Tracked] = field(default_factory=list)
    remembered: dict[RequestKey, Remembered] = field(default_factory=dict)

    async def decide(self, tx: Transaction, one: _Waiting) -> SessionAccepted:
        """Answer one request.

        Raises:
            ProblemError: it is refused, and changed nothing.
        """
        request, key = one.request, one.key
        if key is not None and (known := self.known.get(key)) is not None:
            return await self._replay(tx, request, known)
        template = usable(request.template, self.found[request.template])
        resources = resources_of(request, template)
        need = demand_of(request, resources)
        owner = request.principal.user_id
        usage = self._within_quota(owner, need)
        cluster = self._place(template, need, request)
        runtime = next((c.runtime for c in self.candidates if c.id == cluster), None)
        tracked, told = create(
            Asked(
                owner=Owner(user_id=owner, username=request.principal.username),
                template_id=template.id,
                template_name=template.name,
                digest=template.digest,
                manifest=template.manifest,
                resources=resources,
                cpu_milli=need.cpu_milli,
                memory_bytes=need.memory_bytes,
                persistent_home=request.persistent_home,
                idle_timeout=request.idle_timeout or self.rules.idle_timeout,
                max_duration=request.max_duration or self.rules.max_duration,
                cluster=cluster,
                wanted_cluster=request.cluster_id,
                protocol=reach(template.manifest, runtime).protocol,
            ),
            actor=user_actor(request.principal, request.address),
            cause=request.request_id,
            now=await tx.now(),
            timing=self.rules.timing,
        )
        self._count(tracked, usage)
        if key is not None:
            self.known[key] = self.remembered[key] = Remembered(
                fingerprint(request), tracked.session.id, tracked.order.id
            )
        if cluster is not None:
            await send_newest(tx, tracked)
        tx.tell(told)
        return SessionAccepted(session=tracked.session, command_id=tracked.order.id)

    async def keep(self, tx: Transaction) -> None:
        """Write all that was accepted."""
        await tx.sessions.insert(self.created)
        if self.remembered:
            await tx.requests.remember(self.remembered)

    async def _replay(
        self, tx: Transaction, request: CreateSession, known: Remembered
    ) -> SessionAccepted:
        if known.request_hash != fingerprint(request):
            raise ProblemError.of(
                Code.IDEMPOTENCY_CONFLICT,
                "This Idempotency-Key was used for a session with other properties. "
                "Use a new key for a new session.",
            )
        here = (one for one in self.created if one.session.id == known.session_id)
        tracked = next(here, None) or await tx.sessions.get(known.session_id)
        if tracked is None:
            raise RuntimeError(f"idempotency key names session {known.session_id}, which is gone")
        return SessionAccepted(session=tracked.session, command_id=known.command_id, replayed=True)

    def _within_quota(self, owner: UserId, need: Demand) -> Usage:
        """What the owner would hold with this session."""
        usage = self.usage[owner].plus(Usage(1, need.cpu_milli, need.memory_bytes))
        try:
            quotas.check(usage, self.rules.quota)
        except QuotaExceededError as error:
            raise ProblemError.of(Code.QUOTA_EXCEEDED, str(error)) from None
        return usage

    def _place(
        self, template: TemplateRecord, need: Demand, request: CreateSession
    ) -> ClusterId | None:
        try:
            return placement.choose(
                self.candidates,
                requirement(template.manifest, need, request.cluster_id),
                self.rules.overcommit,
            )
        except NoClusterError as error:
            raise ProblemError.of(Code.NO_CLUSTER, str(error)) from None

    def _count(self, tracked: Tracked, usage: Usage) -> None:
        self.created.append(tracked)
        self.usage[tracked.session.owner.user_id] = usage
        self.candidates = [
            replace(
                candidate,
                reserved_sessions=candidate.reserved_sessions + 1,
                reserved_cpu_milli=candidate.reserved_cpu_milli + tracked.cpu_milli,
                reserved_memory=candidate.reserved_memory + tracked.memory_bytes,
            )
            if candidate.id == tracked.session.cluster_id
            else candidate
            for candidate in self.candidates
        ]
