"""What all events share: an id, a time, a subject, and who or what they are about.

Agents publish on `evt.<cluster>.session.<session>.<kind>`, the control plane on
`evt.core.<aggregate>.<id>.<kind>`. The last token of the subject is `KIND`.
`id` is the CloudEvents id and the `Nats-Msg-Id`; an agent derives it from what
happened, so that telling it twice stores it once.
"""

from typing import ClassVar

from pydantic import Field

from streamspace_common.contracts.base import Message, Timestamp
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import ClusterIdText, CommandIdText, SessionIdText
from streamspace_common.contracts.subjects import Aggregate, Subject, agent_event, core_event


class Event(Message):
    """Base of all events; `at` is the publisher's clock and decides nothing."""

    KIND: ClassVar[str]
    id: str = Field(min_length=1, max_length=160)
    at: Timestamp

    @property
    def subject(self) -> Subject:
        """Where this event is published."""
        raise NotImplementedError

    @property
    def about(self) -> str:
        """CloudEvents `subject`: the id of what the event is about."""
        raise NotImplementedError


class AgentEvent(Event):
    """An agent's report about one session and one generation of its commands."""

    cluster_id: ClusterIdText
    instance: str
    session_id: SessionIdText
    generation: int = Field(ge=1)
    command_id: CommandIdText | None = None

    @property
    def subject(self) -> Subject:
        return agent_event(self.cluster_id, self.session_id, self.KIND)

    @property
    def about(self) -> str:
        return self.session_id


class CoreEvent(Event):
    """A decision of the control plane, with who caused it."""

    AGGREGATE: ClassVar[Aggregate]
    actor: Actor
    cause: str | None = Field(default=None, description="Id of the event or request behind it.")

    @property
    def subject(self) -> Subject:
        return core_event(self.AGGREGATE, self.about, self.KIND)
