"""Agents of other versions: one that knows only what a release knew, one from the future.

Both are the scripted agent with its words changed on their way: what it says and what it
hears passes through a `Speech`, which takes away what the release did not know or adds
what nobody knows yet.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from streamspace_common.bus import Bus, Delivery
from streamspace_common.bus.envelope import core_headers, event_headers
from streamspace_common.contracts.base import Message
from streamspace_common.contracts.events import AgentEvent
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.subjects import heartbeat
from streamspace_common.protogen.catalogue import payloads
from streamspace_common.protogen.files import schema
from streamspace_common.testing.scripted_agent import ScriptedAgent

Schema = Mapping[str, Any]
Fields = dict[str, Any]


class Speech(Protocol):
    """How an agent's words differ from today's."""

    def heard(self, type_name: str, payload: bytes) -> bytes: ...

    def said(self, type_name: str, payload: bytes) -> bytes: ...


class OfRelease:
    """What a frozen release knew: fields that its schemas do not name do not exist."""

    def __init__(self, release: Path) -> None:
        self._schemas = {
            path.stem: json.loads(path.read_text()) for path in (release / "schemas").glob("*.json")
        }

    def heard(self, type_name: str, payload: bytes) -> bytes:
        return self._known(type_name, payload)

    def said(self, type_name: str, payload: bytes) -> bytes:
        return self._known(type_name, payload)

    def _known(self, type_name: str, payload: bytes) -> bytes:
        known = self._schemas[type_name]
        return json.dumps(restricted(json.loads(payload), known, known)).encode()


class FromTheFuture:
    """Says more than anybody knows yet, in every object whose fields have a meaning."""

    def heard(self, type_name: str, payload: bytes) -> bytes:
        return payload

    def said(self, type_name: str, payload: bytes) -> bytes:
        today = schema(payloads()[type_name])
        return json.dumps(_mapped(json.loads(payload), today, today, _extended)).encode()


def restricted(value: Any, known: Schema, root: Schema) -> Any:
    """The value without the fields that the schema does not name."""
    return _mapped(value, known, root, _named)


def _named(value: Fields, known: Schema) -> Fields:
    fields = known.get("properties", {})
    if not fields or known.get("additionalProperties"):
        return value
    return {name: one for name, one in value.items() if name in fields}


def _extended(value: Fields, known: Schema) -> Fields:
    if not known.get("properties") or known.get("additionalProperties"):
        return value  # Any name may stand here, so another one would have a meaning.
    return {**value, "unheardOf": {"since": "9.0"}}


def _mapped(
    value: Any, known: Schema, root: Schema, change: Callable[[Fields, Schema], Fields]
) -> Any:
    """The value with each of its objects changed, which is given with its schema."""
    if "$ref" in known:
        return _mapped(value, root["$defs"][known["$ref"].rpartition("/")[2]], root, change)
    choices = (known, *known.get("anyOf", ()), *known.get("oneOf", ()))
    if isinstance(value, dict):
        for choice in choices[1:]:
            if "$ref" in choice or choice.get("type") == "object":
                return _mapped(value, choice, root, change)
        fields, others = known.get("properties", {}), known.get("additionalProperties")
        rest = others if isinstance(others, dict) else {}
        return {
            name: _mapped(one, fields.get(name, rest), root, change)
            if name in known.get("properties", {}) or rest
            else one
            for name, one in change(value, known).items()
        }
    if isinstance(value, list):
        items: Schema = next((choice["items"] for choice in choices if "items" in choice), {})
        return [_mapped(one, items, root, change) for one in value]
    return value


@dataclass
class AgentOfOtherVersion(ScriptedAgent):
    """A scripted agent that speaks otherwise.

    Args:
        speech: how.
        version: what it calls itself.
    """

    speech: Speech | None = None
    version: str = "test"

    def __post_init__(self) -> None:
        assert self.speech is not None, "say how it speaks"
        self.bus = _Interpreted(self.bus, self.speech, self.version)  # type: ignore[assignment]

    async def _obey(self, delivery: Delivery) -> None:
        assert self.speech is not None
        payload = self.speech.heard(delivery.type, delivery.payload)
        await super()._obey(replace(delivery, payload=payload))


class _Interpreted:
    """A bus on which everything that is published passes through the speech."""

    def __init__(self, bus: Bus, speech: Speech, version: str) -> None:
        self._bus = bus
        self.speech = speech
        self._version = version

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)

    async def publish_event(self, event: AgentEvent, *, source: str) -> None:
        payload = self.speech.said(event.TYPE, event.to_json())
        await self._bus.publish(event.subject, payload, event_headers(event, source=source))

    async def publish_core(self, subject: str, message: Message) -> None:
        content = json.loads(message.to_json())
        if "version" in content:
            content["version"] = self._version
        payload = self.speech.said(message.TYPE, json.dumps(content).encode())
        await self._bus.link.publish(subject, payload, headers=core_headers(message))


async def publish_unheard_of(bus: Bus, cluster: ClusterId, session: str) -> None:
    """An event and a heartbeat of kinds that nobody knows yet."""
    subject = f"evt.{cluster}.session.{session}.levitated"
    headers = {"ce-id": f"{session}.levitated", "ce-type": "session.levitated.v1"}
    await bus.publish(subject, b'{"height":3}', {**headers, "Nats-Msg-Id": headers["ce-id"]})
    await bus.link.publish(
        heartbeat(cluster, "agent-9"), b"{}", headers={"ce-type": "agent.daydream.v1"}
    )
