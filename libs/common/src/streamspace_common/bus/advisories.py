"""What the server says of messages it will not deliver again, read from its advisories."""

from dataclasses import dataclass

from pydantic import BaseModel, Field, ValidationError

_TERMINATED = "io.nats.jetstream.advisory.v1.terminated"
_MAX_DELIVERIES = "io.nats.jetstream.advisory.v1.max_deliver"


@dataclass(frozen=True)
class Advisory:
    """One message that a consumer is done with.

    `terminated` says that its handler refused it, with `reason` in the handler's words;
    otherwise it was delivered as often as allowed and never acknowledged.
    """

    stream: str
    consumer: str
    sequence: int
    deliveries: int
    terminated: bool
    reason: str


class _Payload(BaseModel):
    type: str
    stream: str
    consumer: str
    stream_seq: int = Field(ge=1)
    deliveries: int = 0
    reason: str = ""


def parse_advisory(payload: bytes) -> Advisory | None:
    """Read an advisory; None for one of another kind.

    Raises:
        ValueError: it is no advisory at all.
    """
    try:
        said = _Payload.model_validate_json(payload)
    except ValidationError as error:
        raise ValueError(f"not an advisory: {error.error_count()} errors") from error
    if said.type not in {_TERMINATED, _MAX_DELIVERIES}:
        return None
    return Advisory(
        stream=said.stream,
        consumer=said.consumer,
        sequence=said.stream_seq,
        deliveries=said.deliveries,
        terminated=said.type == _TERMINATED,
        reason=said.reason,
    )
