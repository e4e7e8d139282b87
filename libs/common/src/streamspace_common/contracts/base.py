"""The shape all contract models share: frozen, camelCase on the wire, tolerant readers."""

from datetime import UTC, datetime
from typing import Annotated, ClassVar, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    PlainSerializer,
    SecretStr,
)
from pydantic.alias_generators import to_camel


def _to_utc(value: datetime) -> datetime:
    return value.astimezone(UTC)


Timestamp = Annotated[AwareDatetime, AfterValidator(_to_utc)]
"""An aware moment, kept and written in UTC (RFC 3339 on the wire)."""


def _reveal(value: SecretStr) -> str:
    return value.get_secret_value()


Secret = Annotated[SecretStr, PlainSerializer(_reveal, return_type=str, when_used="json")]
"""A secret that travels: hidden in `repr` and logs, written only by `to_json`."""


class Contract(BaseModel):
    """A frozen value with snake_case names in Python and camelCase names in JSON."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        frozen=True,
        extra="ignore",
    )

    def to_json(self) -> bytes:
        """The wire form: UTF-8 JSON with camelCase names."""
        return self.model_dump_json().encode()

    @classmethod
    def from_json(cls, payload: bytes | str) -> Self:
        """Read the wire form.

        Raises:
            pydantic.ValidationError: when the payload is not of this shape.
        """
        return cls.model_validate_json(payload)


class Message(Contract):
    """A contract that travels alone and is known by its type name."""

    TYPE: ClassVar[str]
    """Name on the wire (`ce-type`), ending in `.v1`."""
