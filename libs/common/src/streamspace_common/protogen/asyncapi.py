"""The AsyncAPI 3.0 document: channels are subjects, JetStream stands in `x-jetstream`.

AsyncAPI's NATS binding knows a queue group and nothing of streams, so their settings
are written in an extension, from the same table that provisions them.
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from streamspace_common.contracts.base import Message
from streamspace_common.contracts.clusters import Heartbeat, Inventory
from streamspace_common.contracts.commands import COMMAND_TYPES
from streamspace_common.contracts.events import AGENT_EVENTS, CORE_EVENTS
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.permissions import SERVICES, agent, joining
from streamspace_common.contracts.requests import (
    CLUSTER_METHODS,
    METHODS_FOR_CLUSTERS,
    SERVICE_METHODS,
)
from streamspace_common.contracts.streams import (
    SERVICE_DURABLES,
    STREAMS,
    Durable,
    Stream,
    agent_durable,
)
from streamspace_common.protogen.catalogue import PROBLEM, Payload, reply_name, request_name

_CLUSTER = ClusterId("CLUSTER")
_PARAMETERS = {
    "cluster": "A cluster's id: a DNS label of at most 30 characters, never `core`.",
    "session": "A session's id: a DNS label of at most 52 characters.",
    "instance": "One agent process.",
    "id": "Id of what the event is about.",
}


def document(payloads: dict[str, Payload]) -> dict[str, Any]:
    """The whole document as plain data."""
    channels = dict(_channels())
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "StreamSpace messages",
            "version": "1.0.0",
            "license": {"name": "Apache-2.0"},
            "description": (
                "What StreamSpace's services and agents say to each other over NATS. Generated "
                "from the models in `streamspace_common.contracts`; do not edit."
            ),
        },
        "defaultContentType": "application/json",
        "servers": {
            "nats": {"host": "localhost:4222", "protocol": "nats", "description": "NATS >= 2.11"}
        },
        "channels": channels,
        "operations": dict(_operations(channels)),
        "components": {
            "messages": {name: _message(payload) for name, payload in payloads.items()},
            "parameters": {name: {"description": text} for name, text in _PARAMETERS.items()},
            "messageTraits": {"cloudEvent": {"headers": _CLOUD_EVENT_HEADERS}},
        },
        "x-jetstream": {
            "streams": {stream.name: _stream(stream) for stream in STREAMS},
            "durables": {
                durable.name: _durable(durable)
                for durable in (*SERVICE_DURABLES, agent_durable(_CLUSTER))
            },
        },
    }


_CLOUD_EVENT_HEADERS: dict[str, Any] = {
    "type": "object",
    "required": ["ce-specversion", "ce-type"],
    "properties": {
        "ce-specversion": {"const": "1.0"},
        "ce-id": {"type": "string", "description": "Also in `Nats-Msg-Id`."},
        "ce-type": {"type": "string", "description": "The message's name here."},
        "ce-source": {"type": "string"},
        "ce-time": {"type": "string", "format": "date-time"},
        "ce-subject": {"type": "string", "description": "Id of what it is about."},
        "content-type": {"const": "application/json"},
        "Nats-Msg-Id": {"type": "string"},
        "traceparent": {"type": "string", "description": "W3C Trace Context."},
    },
}


def _channels() -> Iterator[tuple[str, dict[str, Any]]]:
    command_names = [command.TYPE for command in COMMAND_TYPES]
    yield "command", _channel("cmd.{cluster}.{session}", command_names, "COMMANDS")
    for event in AGENT_EVENTS:
        address = f"evt.{{cluster}}.session.{{session}}.{event.KIND}"
        yield event.__name__, _channel(address, [event.TYPE], "EVENTS", event)
    for core in CORE_EVENTS:
        address = f"evt.core.{core.AGGREGATE}.{{id}}.{core.KIND}"
        yield core.__name__, _channel(address, [core.TYPE], "EVENTS", core)
    yield "deadLetter", _channel("dlq.{cluster}.{session}", command_names, "DLQ")
    yield "heartbeat", _channel("hb.{cluster}.{instance}", [Heartbeat.TYPE, Inventory.TYPE], None)
    for service, methods in SERVICE_METHODS.items():
        for method in methods:
            names = [request_name(service, method.name), reply_name(service, method.name)]
            yield f"{service}.{method.name}", _channel(method.subject, [*names, PROBLEM], None)
    for asked in METHODS_FOR_CLUSTERS:
        names = [request_name(asked.service, asked.name), reply_name(asked.service, asked.name)]
        address = f"svc.{asked.service}.{asked.name}.{{cluster}}"
        yield f"{asked.service}.{asked.name}", _channel(address, [*names, PROBLEM], None)
    for rpc in CLUSTER_METHODS:
        address = f"rpc.{{cluster}}.{rpc.name}"
        names = [rpc.request.TYPE, rpc.reply.TYPE]
        answered = "Answered on the request's reply subject, `ans.{cluster}.<asker>.<request>`."
        yield (
            f"agent.{rpc.name}",
            {**_channel(address, [*names, PROBLEM], None), "description": answered},
        )


def _channel(
    address: str, messages: Iterable[str], stream: str | None, model: type[Message] | None = None
) -> dict[str, Any]:
    parameters = {
        name: {"$ref": f"#/components/parameters/{name}"}
        for name in _PARAMETERS
        if f"{{{name}}}" in address
    }
    description = _summary(model) if model else None
    return {
        "address": address,
        **({"description": description} if description else {}),
        **({"parameters": parameters} if parameters else {}),
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "x-stored-in": stream,
    }


def _operations(channels: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, channel in channels.items():
        here = f"#/channels/{key}"
        senders = publishers(channel["address"])
        if PROBLEM not in channel["messages"]:
            yield (
                f"publish.{key}",
                {
                    "action": "send",
                    "channel": {"$ref": here},
                    "x-sent-by": senders,
                },
            )
            continue
        request, reply, problem = channel["messages"]
        yield (
            f"ask.{key}",
            {
                "action": "send",
                "channel": {"$ref": here},
                "messages": [{"$ref": f"{here}/messages/{request}"}],
                "reply": {
                    "address": {"location": "$message.header#/reply"},
                    "channel": {"$ref": here},
                    "messages": [{"$ref": f"{here}/messages/{name}"} for name in (reply, problem)],
                },
                "bindings": {"nats": {"queue": "q", "bindingVersion": "0.1.0"}},
                "x-sent-by": senders,
                "x-answered-by": _listener(channel["address"]),
            },
        )


def publishers(address: str) -> list[str]:
    """Who is allowed to publish on a channel's address, by the table of permissions."""
    subject = address
    for name in _PARAMETERS:
        subject = subject.replace(f"{{{name}}}", _CLUSTER if name == "cluster" else "X")
    roles = {**SERVICES, "agent": agent(_CLUSTER), "enrolment": joining(_CLUSTER)}
    return sorted(
        role
        for role, rights in roles.items()
        if any(matches(pattern, subject) for pattern in rights.publish)
    )


def matches(pattern: str, subject: str) -> bool:
    """Whether a NATS subject pattern covers a subject."""
    wanted, found = pattern.split("."), subject.split(".")
    for position, part in enumerate(wanted):
        if part == ">":
            return len(found) > position
        if position >= len(found) or part not in {"*", found[position]}:
            return False
    return len(wanted) == len(found)


def _listener(address: str) -> str:
    match address.split("."):
        case ["svc", "catalog", _]:
            return "catalog-sync"
        case ["svc", service, *_]:
            return service
        case _:
            return "agent"


def _message(payload: Payload) -> dict[str, Any]:
    summary = _summary(payload.model)
    return {
        "name": payload.name,
        **({"summary": summary} if summary else {}),
        "contentType": "application/json",
        **(
            {"traits": [{"$ref": "#/components/messageTraits/cloudEvent"}]}
            if payload.is_message
            else {}
        ),
        "payload": {"$ref": f"./schemas/{payload.name}.json"},
        "x-example": f"./examples/{payload.name}.json",
    }


def _summary(model: type) -> str:
    """The first paragraph of the model's own docstring, where it has one."""
    return " ".join((vars(model).get("__doc__") or "").split("\n\n")[0].split())


def _stream(stream: Stream) -> dict[str, Any]:
    return {
        "description": stream.description,
        "subjects": list(stream.subjects),
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "compression": "none",
        "maxAge": _duration(stream.max_age),
        "maxBytes": stream.max_bytes,
        "maxMessageSize": stream.max_message_size,
        "maxMessagesPerSubject": stream.max_messages_per_subject,
        "maxConsumers": stream.max_consumers,
        "duplicateWindow": _duration(stream.duplicate_window),
        "messageTtl": stream.message_ttl,
        "denyDelete": stream.immutable,
        "denyPurge": stream.immutable,
    }


def _durable(durable: Durable) -> dict[str, Any]:
    return {
        "stream": durable.stream,
        "filters": list(durable.filters),
        "ackPolicy": "explicit",
        "ackWait": _duration(durable.ack_wait),
        "maxDeliver": durable.max_deliver,
        "maxAckPending": durable.max_ack_pending,
    }


def _duration(value: timedelta) -> str:
    seconds = value.total_seconds()
    return f"{seconds / 86400:g}d" if seconds % 86400 == 0 else f"{seconds:g}s"
