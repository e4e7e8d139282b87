"""Commands to be handled."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streamspace_common.contracts.catalog import (
    Connection,
    EnvVar,
    Metadata,
    ProcessSpec,
    Protocol,
    ResourceAmounts,
    TemplateManifest,
    TemplateSpec,
)
from streamspace_common.contracts.identity import Actor
from streamspace_common.contracts.ids import ClusterId, CommandId, SessionId, TemplateId, UserId
from streamspace_common.contracts.sessions import Owner, SessionSpec

TERMINAL = ProcessSpec(command=("xterm",))
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def make_spec() -> Callable[..., SessionSpec]:
    def make(
        *,
        process: ProcessSpec | None = TERMINAL,
        protocol: Protocol = Protocol.VNC,
        template_env: dict[str, str] | None = None,
        **fields: Any,
    ) -> SessionSpec:
        template = TemplateSpec(
            display_name="Terminal",
            connection=Connection(protocol=protocol, port=5900),
            process=process,
            env=tuple(EnvVar(name=k, value=v) for k, v in (template_env or {}).items()),
        )
        values: dict[str, Any] = {
            "session_id": SessionId("ada-terminal-00000001"),
            "owner": Owner(user_id=UserId(f"usr-{'0' * 32}"), username="ada"),
            "template_id": TemplateId("starter_terminal"),
            "template_digest": "0" * 64,
            "template_manifest": TemplateManifest(metadata=Metadata(name="t"), spec=template),
            "resources": ResourceAmounts(),
            "home": "ada-00000000",
            **fields,
        }
        return SessionSpec(**values)

    return make


@pytest.fixture
def make_command(make_spec: Callable[..., SessionSpec]) -> Callable[..., Any]:
    def make(kind: Any, *, generation: int = 1, **fields: Any) -> Any:
        if "spec" in kind.model_fields:
            fields.setdefault("spec", make_spec())
        values: dict[str, Any] = {
            "command_id": CommandId("cmd-0000000a"),
            "session_id": SessionId("ada-terminal-00000001"),
            "cluster_id": ClusterId("lab"),
            "generation": generation,
            "issued_at": NOW,
            "deadline": NOW + timedelta(seconds=60),
            "actor": Actor(id="system:test"),
            **fields,
        }
        return kind(**values)

    return make
