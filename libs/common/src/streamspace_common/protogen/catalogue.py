"""Every payload that travels, by the name it is published under."""

from dataclasses import dataclass

from streamspace_common.contracts.base import Contract, Message
from streamspace_common.contracts.clusters import Heartbeat, Inventory
from streamspace_common.contracts.commands import COMMAND_TYPES
from streamspace_common.contracts.events import AGENT_EVENTS, CORE_EVENTS
from streamspace_common.contracts.problems import Problem
from streamspace_common.contracts.requests import (
    CLUSTER_METHODS,
    METHODS_FOR_CLUSTERS,
    SERVICE_METHODS,
)

PROBLEM = "problem"


@dataclass(frozen=True)
class Payload:
    """One payload: its published name, its model, and whether it is a request or a reply."""

    name: str
    model: type[Contract]

    @property
    def is_message(self) -> bool:
        """It is known by a type name of its own, carried in the `ce-type` header."""
        return issubclass(self.model, Message)


def request_name(service: str, method: str) -> str:
    return f"svc.{service}.{method}.request"


def reply_name(service: str, method: str) -> str:
    return f"svc.{service}.{method}.reply"


def payloads() -> dict[str, Payload]:
    """All payloads by name, in the order of the contract modules."""
    messages: list[type[Message]] = [
        *COMMAND_TYPES,
        *AGENT_EVENTS,
        *CORE_EVENTS,
        Heartbeat,
        Inventory,
        *(model for method in CLUSTER_METHODS for model in (method.request, method.reply)),
    ]
    found = [Payload(message.TYPE, message) for message in messages]
    for service, methods in SERVICE_METHODS.items():
        for method in methods:
            found.append(Payload(request_name(service, method.name), method.request))
            found.append(Payload(reply_name(service, method.name), method.reply))
    for asked in METHODS_FOR_CLUSTERS:
        found.append(Payload(request_name(asked.service, asked.name), asked.request))
        found.append(Payload(reply_name(asked.service, asked.name), asked.reply))
    found.append(Payload(PROBLEM, Problem))
    return {payload.name: payload for payload in found}
