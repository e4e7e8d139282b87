"""Writes docs/reference/settings.md from the settings of every service.

The classes are the source of truth: names, defaults and reasons stand there and only
there. `--check` compares and changes nothing.

Usage: python -m streamspace_embedded.settings_reference [--check] [FILE]
"""

import argparse
import sys
import types
from collections.abc import Iterable, Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from streamspace_agent.settings import AgentSettings
from streamspace_auth.settings import AuthSettings
from streamspace_catalog_sync.settings import Settings as CatalogSyncSettings
from streamspace_common.runtime.settings import SECRETS_DIR, SHARED_PREFIX, ServiceSettings
from streamspace_gateway.settings import GatewaySettings
from streamspace_session.settings import SessionSettings
from streamspace_vnc_proxy.agent_ingress.settings import AgentIngressSettings
from streamspace_vnc_proxy.settings import VncProxySettings

SETTINGS: dict[str, type[ServiceSettings]] = {
    "gateway": GatewaySettings,
    "auth": AuthSettings,
    "session": SessionSettings,
    "catalog-sync": CatalogSyncSettings,
    "agent": AgentSettings,
    "vnc-proxy": VncProxySettings,
    "agent-ingress": AgentIngressSettings,
}
DEFAULT_FILE = Path("docs/reference/settings.md")

_HEAD = f"""\
# Settings

Made by `make settings` from the settings classes; change those.

Every setting is an environment variable. A service reads its own,
`{SHARED_PREFIX}<SERVICE>_<FIELD>`, and where that is not set the one without its name,
`{SHARED_PREFIX}<FIELD>`, which so reaches all services that have the field. With
`{SECRETS_DIR}` set to a folder, a file in it named like the field in lower
case (`database_url`) is read where neither is set. A service does not start with a wrong
value, and says which and why.

With `make up`, put variables before the command: `{SHARED_PREFIX}LOG_LEVEL=DEBUG make up`.
"""
_TABLE = "| variable | type | default | what it is |\n|---|---|---|---|\n"


def document() -> str:
    """The whole page."""
    parts = [_HEAD, _section("All services", SHARED_PREFIX, ServiceSettings.model_fields.items())]
    for service, cls in SETTINGS.items():
        own = (
            (name, field)
            for name, field in cls.model_fields.items()
            if name not in ServiceSettings.model_fields
        )
        parts.append(_section(service, str(cls.model_config["env_prefix"]), own))
    return "\n".join(parts)


def _section(title: str, prefix: str, fields: Any) -> str:
    rows = "".join(_row(prefix, name, field) for name, field in fields)
    return f"## {title}\n\n{_TABLE}{rows}"


def _row(prefix: str, name: str, field: FieldInfo) -> str:
    kind = _type(field.annotation, field.metadata)
    limits = ", ".join(_limits(field.metadata))
    cells = (
        f"`{prefix}{name.upper()}`",
        f"{kind}, {limits}" if limits else kind,
        _default(field),
        _escaped(field.description or ""),
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _escaped(text: str) -> str:
    """Angle brackets outside of code, which Markdown would take for HTML."""
    parts = text.split("`")
    return "`".join(
        part if index % 2 else part.replace("<", "\\<") for index, part in enumerate(parts)
    )


def _type(annotation: Any, metadata: list[Any]) -> str:
    """A type in words; `metadata` is the field's, for how a list is written."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (types.UnionType, Union):
        some = [_type(each, metadata) for each in arguments if each is not type(None)]
        return " or ".join(dict.fromkeys(some))
    if origin is Annotated:
        return _type(arguments[0], metadata)
    if origin is Literal:
        return _choice(arguments)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _choice(member.value for member in annotation)
    if origin is tuple and any("NoDecode" in repr(each) for each in metadata):
        return "list, with commas between"
    return _WORDS.get(origin or annotation, "text")


def _choice(values: Iterable[object]) -> str:
    return " or ".join(f"`{value}`" for value in values)


_WORDS: dict[Any, str] = {
    tuple: "JSON list",
    dict: "JSON object",
    bool: "`true` or `false`",
    int: "whole number",
    float: "number",
    Path: "path",
    SecretStr: "secret",
    timedelta: "seconds",
}


def _limits(metadata: list[Any]) -> Iterator[str]:
    for sign, attribute in (("≥", "ge"), (">", "gt"), ("≤", "le"), ("<", "lt")):
        for limit in metadata:
            value = getattr(limit, attribute, None)
            if value is not None:
                yield f"{sign} {_plain(value)}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value is PydanticUndefined or value in ((), {}):
        return ""
    return f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    """A value as one would write it into the variable."""
    match value:
        case timedelta():
            return f"{value.total_seconds():g}"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}" if value < 1e6 else f"{value:.0f}"
        case Enum():
            return str(value.value)
        case tuple():
            return ",".join(map(str, value))
        case _:
            return str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=DEFAULT_FILE)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    wanted = document()
    if not arguments.check:
        arguments.file.write_text(wanted, encoding="utf-8")
    elif not arguments.file.exists() or arguments.file.read_text(encoding="utf-8") != wanted:
        sys.exit(f"{arguments.file} is not what the settings say; `make settings` writes it anew.")


if __name__ == "__main__":
    main()
