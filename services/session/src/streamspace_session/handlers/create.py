"""Creating a session: template, quota, placement and first command in one transaction.

The order of the steps is the order of the locks: the idempotency key, the owner's
usage, then the clusters. What costs time without needing a lock is done before.
"""

import hashlib
from dataclasses import dataclass

from streamspace_common.contracts.catalog import ResourceAmounts
from streamspace_common.contracts.identity import user_actor
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.problems import Code, FieldProblem, ProblemError
from streamspace_common.contracts.requests import CreateSession, SessionAccepted
from streamspace_common.contracts.sessions import Owner
from streamspace_session.domain import Asked, Timing, create, reach
from streamspace_session.handlers.effects import send_newest
from streamspace_session.policy import placement, quotas
from streamspace_session.policy.placement import Candidate, NoClusterError, Overcommit, requirement
from streamspace_session.policy.quantities import Demand, QuantityError, demand
from streamspace_session.policy.quotas import Quota, QuotaExceededError
from streamspace_session.ports import Remembered, Store, TemplateRecord, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What an installation allows; durations in seconds, None for never."""

    timing: Timing
    quota: Quota
    overcommit: Overcommit
    idle_timeout: int | None = None
    max_duration: int | None = None


class Creation:
    """Answers `create`."""

    def __init__(self, store: Store, rules: Rules) -> None:
        self._store = store
        self._rules = rules

    async def create(self, request: CreateSession) -> SessionAccepted:
        _refuse_unprintable(request)
        async with self._store.transaction() as tx:
            if request.idempotency_key is not None:
                known = await tx.requests.claim(
                    request.principal.user_id, request.idempotency_key, fingerprint(request)
                )
                if known is not None:
                    return await _replay(tx, request, known)
            return await self._create(tx, request)

    async def _create(self, tx: Transaction, request: CreateSession) -> SessionAccepted:
        template = _usable(request.template, await tx.templates.find(request.template))
        resources = _resources(request, template)
        need = _demand(request, resources)
        now = await tx.now()
        await self._check_quota(tx, request, need)
        candidates = await tx.clusters.candidates()
        cluster = self._place(candidates, template, need, request)
        runtime = next((c.runtime for c in candidates if c.id == cluster), None)
        tracked, created = create(
            Asked(
                owner=Owner(user_id=request.principal.user_id, username=request.principal.username),
                template_id=template.id,
                template_name=template.name,
                digest=template.digest,
                manifest=template.manifest,
                resources=resources,
                cpu_milli=need.cpu_milli,
                memory_bytes=need.memory_bytes,
                persistent_home=request.persistent_home,
                idle_timeout=request.idle_timeout or self._rules.idle_timeout,
                max_duration=request.max_duration or self._rules.max_duration,
                cluster=cluster,
                wanted_cluster=request.cluster_id,
                protocol=reach(template.manifest, runtime).protocol,
            ),
            actor=user_actor(request.principal, request.address),
            cause=request.request_id,
            now=now,
            timing=self._rules.timing,
        )
        await tx.sessions.insert(tracked)
        if request.idempotency_key is not None:
            await tx.requests.remember(
                request.principal.user_id,
                request.idempotency_key,
                tracked.session.id,
                tracked.order.id,
            )
        if cluster is not None:
            await send_newest(tx, tracked)
        tx.tell(created)
        return SessionAccepted(session=tracked.session, command_id=tracked.order.id)

    async def _check_quota(self, tx: Transaction, request: CreateSession, need: Demand) -> None:
        usage = await tx.sessions.reserve_quota(
            request.principal.user_id, need.cpu_milli, need.memory_bytes
        )
        try:
            quotas.check(usage, self._rules.quota)
        except QuotaExceededError as error:
            raise ProblemError.of(Code.QUOTA_EXCEEDED, str(error)) from None

    def _place(
        self,
        candidates: list[Candidate],
        template: TemplateRecord,
        need: Demand,
        request: CreateSession,
    ) -> ClusterId | None:
        try:
            return placement.choose(
                candidates,
                requirement(template.manifest, need, request.cluster_id),
                self._rules.overcommit,
            )
        except NoClusterError as error:
            raise ProblemError.of(Code.NO_CLUSTER, str(error)) from None


def _refuse_unprintable(request: CreateSession) -> None:
    """PostgreSQL keeps no NUL in a text, and no name or key has one."""
    if "\x00" in request.template:
        raise ProblemError.of(Code.NOT_FOUND, f"There is no template {request.template!r}.")
    if request.idempotency_key is not None and "\x00" in request.idempotency_key:
        raise ProblemError.of(
            Code.INVALID_REQUEST,
            "Use printable characters in the Idempotency-Key.",
            errors=(FieldProblem(pointer="Idempotency-Key", detail="it holds a NUL"),),
        )


def fingerprint(request: CreateSession) -> bytes:
    """The same for two requests that ask for the same thing."""
    asked = request.model_dump_json(
        exclude={"principal", "address", "request_id", "idempotency_key"}
    )
    return hashlib.sha256(asked.encode()).digest()


async def _replay(tx: Transaction, request: CreateSession, known: Remembered) -> SessionAccepted:
    if known.request_hash != fingerprint(request):
        raise ProblemError.of(
            Code.IDEMPOTENCY_CONFLICT,
            "This Idempotency-Key was used for a session with other properties. "
            "Use a new key for a new session.",
        )
    tracked = await tx.sessions.get(known.session_id)
    if tracked is None:
        raise RuntimeError(f"idempotency key names session {known.session_id}, which is gone")
    return SessionAccepted(session=tracked.session, command_id=known.command_id, replayed=True)


def _usable(text: str, found: list[TemplateRecord]) -> TemplateRecord:
    if not found:
        raise ProblemError.of(Code.NOT_FOUND, f"There is no template {text!r}.")
    if len(found) > 1:
        ids = ", ".join(template.id for template in found)
        raise ProblemError.of(
            Code.TEMPLATE_AMBIGUOUS, f"Several catalogs have a template {text!r}. Name one: {ids}."
        )
    template = found[0]
    if template.unusable is not None:
        raise ProblemError.of(
            Code.TEMPLATE_UNUSABLE, f"Template {template.id} cannot be started: {template.unusable}"
        )
    return template


def _resources(request: CreateSession, template: TemplateRecord) -> ResourceAmounts:
    """What is asked for, and the template's defaults for what is not."""
    asked = request.resources
    defaults = template.manifest.spec.default_resources
    if asked is None:
        return defaults
    return defaults.model_copy(
        update={"cpu": asked.cpu or defaults.cpu, "memory": asked.memory or defaults.memory}
    )


def _demand(request: CreateSession, resources: ResourceAmounts) -> Demand:
    try:
        return demand(resources)
    except QuantityError as error:
        if getattr(request.resources, error.field, None):
            raise ProblemError.of(
                Code.INVALID_REQUEST,
                f"The {error.field} asked for cannot be used: {error.detail}.",
                errors=(FieldProblem(pointer=f"/resources/{error.field}", detail=error.detail),),
            ) from None
        raise ProblemError.of(
            Code.TEMPLATE_UNUSABLE,
            f"The template's default {error.field} cannot be used: {error.detail}. "
            "Give resources of your own, or have the template corrected.",
        ) from None
