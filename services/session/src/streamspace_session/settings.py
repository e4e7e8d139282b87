"""What this service can be told, with the unit and reason of each default.

Variables are named `STREAMSPACE_SESSION_<FIELD>`.
"""

from datetime import timedelta
from typing import ClassVar

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from streamspace_common.contracts.streams import EVENTS
from streamspace_common.runtime.settings import DatabaseSettings, ServiceSettings, service_config
from streamspace_session.domain import Timing
from streamspace_session.handlers.create import Rules
from streamspace_session.policy.placement import Overcommit
from streamspace_session.policy.quantities import parse
from streamspace_session.policy.quotas import Quota


class SessionSettings(ServiceSettings, DatabaseSettings):
    """Durations in seconds."""

    model_config: ClassVar[SettingsConfigDict] = service_config("session")

    concurrency: int = Field(
        default=128,
        ge=1,
        le=1000,
        description="Requests worked on at once; more wait. Creations that come together share "
        "a transaction, so more than the database pool's connections are of use.",
    )
    nats_replicas: int = Field(
        default=1, ge=1, le=5, description="Copies of each stream: 3 on a cluster of three servers."
    )

    pending_limit: float = Field(
        default=600, gt=0, description="A session no agent has begun fails after this."
    )
    starting_limit: float = Field(
        default=300,
        gt=0,
        description="Time between two signs of progress of a start: pulling a large image.",
    )
    hibernating_limit: float = Field(
        default=60, gt=0, description="Stopping processes takes seconds; then it is tried again."
    )
    waking_limit: float = Field(default=300, gt=0, description="As for a start.")
    terminating_limit: float = Field(
        default=60, gt=0, description="Before a deletion nobody confirmed is sent again."
    )
    unknown_limit: float = Field(
        default=7 * 86400,
        gt=0,
        description="A session whose cluster stays away is given up after as long as the "
        "command stream keeps commands.",
    )
    offline_stop_limit: float = Field(
        default=600,
        gt=0,
        description="A deletion on a cluster that is away counts as done after this; the stop "
        "stays in the stream.",
    )
    max_attempts: int = Field(
        default=3, ge=1, le=100, description="How often a command is sent before it fails."
    )
    max_restarts: int = Field(
        default=2,
        ge=0,
        le=100,
        description="How often a session is brought up again whose resources are missing.",
    )

    sweep_interval: float = Field(
        default=1.0, gt=0, le=60, description="Pause between looks for what is due."
    )
    offline_after: float = Field(
        default=13.0,
        gt=0,
        description="Silence after which an agent counts as gone: two heartbeats and some delay, "
        "so that it shows within 15 seconds. After 60 % of it the cluster is degraded.",
    )
    inventory_grace: float = Field(
        default=10.0,
        ge=0,
        description="Sessions that changed more recently are not compared with an inventory, "
        "which may be older.",
    )

    quota_sessions: int = Field(
        default=10, ge=0, description="Sessions a user may have at a time; 0 for no limit."
    )
    quota_cpu: str = Field(
        default="32", description="CPU a user's sessions may hold, as a quantity; 0 for no limit."
    )
    quota_memory: str = Field(
        default="64Gi",
        description="Memory a user's sessions may hold, as a quantity; 0 for no limit.",
    )
    cpu_overcommit: float = Field(
        default=4.0, gt=0, description="How many times a cluster's CPU may be promised."
    )
    memory_overcommit: float = Field(
        default=2.0, gt=0, description="How many times a cluster's memory may be promised."
    )
    idle_timeout: int = Field(
        default=0,
        ge=0,
        description="Hibernate a session nobody has used for so long, unless it says otherwise; "
        "0 for never.",
    )
    max_duration: int = Field(
        default=0,
        ge=0,
        description="End a session after so long, unless it says otherwise; 0 for never.",
    )
    ticket_life: float = Field(
        default=60.0, gt=0, le=60, description="How long a connect ticket can be used."
    )
    idempotency_life: float = Field(
        default=86400, gt=0, description="How long an Idempotency-Key is remembered."
    )
    ended_session_days: int = Field(
        default=90,
        gt=EVENTS.max_age.days,
        description="Days after its end until a session is removed with its commands and its "
        "history; longer than the event stream keeps what happened to it.",
    )

    @field_validator("quota_cpu", "quota_memory")
    @classmethod
    def _is_quantity(cls, value: str) -> str:
        parse(value)
        return value

    @property
    def timing(self) -> Timing:
        return Timing(
            pending=_seconds(self.pending_limit),
            starting=_seconds(self.starting_limit),
            hibernating=_seconds(self.hibernating_limit),
            waking=_seconds(self.waking_limit),
            terminating=_seconds(self.terminating_limit),
            unknown=_seconds(self.unknown_limit),
            offline_stop=_seconds(self.offline_stop_limit),
            max_attempts=self.max_attempts,
            max_restarts=self.max_restarts,
        )

    @property
    def rules(self) -> Rules:
        return Rules(
            timing=self.timing,
            quota=Quota(
                sessions=self.quota_sessions,
                cpu_milli=int(parse(self.quota_cpu) * 1000),
                memory_bytes=int(parse(self.quota_memory)),
            ),
            overcommit=Overcommit(self.cpu_overcommit, self.memory_overcommit),
            idle_timeout=self.idle_timeout or None,
            max_duration=self.max_duration or None,
        )


def _seconds(value: float) -> timedelta:
    return timedelta(seconds=value)
