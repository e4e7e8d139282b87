"""Identifiers, and how any user text becomes a valid one.

A session id is one DNS-1123 label of at most 52 characters, so that it can name
a Deployment, a Service, a host and a subject token, with room for suffixes such
as `-home`. Users and templates may be called anything; `slug` makes a label of
any text, never an invalid one and never the same one for two texts.
"""

import hashlib
import re
import secrets
from typing import Annotated, NewType
from uuid import UUID, uuid4

from pydantic import StringConstraints

SessionId = NewType("SessionId", str)
CommandId = NewType("CommandId", str)
ClusterId = NewType("ClusterId", str)
TemplateId = NewType("TemplateId", str)
CatalogId = NewType("CatalogId", str)
UserId = NewType("UserId", str)

LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
SESSION_ID_LENGTH = 52
CLUSTER_ID_LENGTH = 30
CORE = "core"
"""Stands where a cluster's id stands, for events of the control plane itself."""

SessionIdText = Annotated[
    SessionId, StringConstraints(pattern=LABEL_PATTERN, max_length=SESSION_ID_LENGTH)
]
ClusterIdText = Annotated[
    ClusterId, StringConstraints(pattern=LABEL_PATTERN, max_length=CLUSTER_ID_LENGTH)
]
CatalogIdText = Annotated[CatalogId, StringConstraints(pattern=LABEL_PATTERN, max_length=40)]
TemplateIdText = Annotated[
    TemplateId,
    StringConstraints(pattern=r"^[a-z0-9][-a-z0-9]*_[a-z0-9][-a-z0-9]*$", max_length=104),
]
CommandIdText = Annotated[CommandId, StringConstraints(pattern=r"^cmd-[0-9a-f]{8}$")]
UserIdText = Annotated[UserId, StringConstraints(pattern=r"^usr-[0-9a-f]{32}$")]

_CLEAN = re.compile(LABEL_PATTERN)
_HASH_MARK = "--"


def slug(text: str, max_length: int = 40) -> str:
    """Turn any text into a DNS-1123 label of at most `max_length` characters.

    A text that is such a label already stays as it is; every other text gets
    what can be kept of it, then `--` and eight hex digits of its SHA-256. A text
    that holds `--` always gets the digits, so no text can be chosen to collide
    with another one's slug.
    """
    if len(text) <= max_length and _CLEAN.fullmatch(text) and _HASH_MARK not in text:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    kept = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    room = max_length - len(digest) - len(_HASH_MARK)
    kept = kept[:room].rstrip("-")
    return f"{kept}{_HASH_MARK}{digest}" if kept else f"x{_HASH_MARK}{digest}"


def new_session_id(username: str, template_name: str) -> SessionId:
    """`<user>-<template>-<8 hex>`, for instance `admin-firefox-browser-d40f9190`."""
    return SessionId(f"{slug(username, 20)}-{slug(template_name, 22)}-{secrets.token_hex(4)}")


def new_command_id() -> CommandId:
    """`cmd-` and eight hex digits."""
    return CommandId(f"cmd-{secrets.token_hex(4)}")


def new_user_id() -> UserId:
    """`usr-` and a random UUID's hex digits."""
    return UserId(f"usr-{uuid4().hex}")


def template_id(catalog: CatalogId, name: str) -> TemplateId:
    """A template's id is its catalog and its name's slug, so two catalogs never clash.

    The underscore joins them because no slug can hold one.
    """
    return TemplateId(f"{catalog}_{slug(name, 63)}")


def new_message_id() -> UUID:
    """A fresh id for an event (`ce-id`, and `Nats-Msg-Id`)."""
    return uuid4()
