"""One deterministic, complete value of any contract model: the golden examples.

Every field is filled, optional ones too, so that an example shows all of its type and
keeps all of it parseable for ever after.
"""

import types
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Literal, NewType, TypeVar, Union, get_args, get_origin

from pydantic import AwareDatetime, BaseModel, SecretStr
from pydantic.fields import FieldInfo

from streamspace_common.contracts import ids
from streamspace_common.contracts.base import Contract

Model = TypeVar("Model", bound=Contract)

_MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

_OF_TYPE: Mapping[Any, object] = {
    ids.SessionId: "ada-firefox-browser-d40f9190",
    ids.CommandId: "cmd-1a2b3c4d",
    ids.ClusterId: "lab",
    ids.TemplateId: "starter_firefox-browser",
    ids.CatalogId: "starter",
    ids.UserId: "usr-0123456789abcdef0123456789abcdef",
    datetime: _MOMENT,
    AwareDatetime: _MOMENT,
    SecretStr: "correct horse battery staple",
    bool: True,
    float: 1.5,
}

_OF_NAME: Mapping[str, object] = {
    "action": "start_session",
    "category": "Web Browsers",
    "changed": ["role"],
    "credentials": "-----BEGIN NATS USER JWT-----\n...",
    "description": "A web browser.",
    "error": "The catalog at https://example.org/templates.git cannot be reached.",
    "id": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "memory": "2Gi",
    "message": "What happened, and what to do about it.",
    "name": "firefox-browser",
    "next_cursor": "eyJhZnRlciI6NTJ9",
    "reason": "The session has ended.",
    "reasons": ["port 3000 is what the image listens on; the catalog said 8080"],
    "search": "fire",
    "secret": "b25lLXRpbWUtc2VjcmV0",
    "sign_in": "5d2c9a70",
    "tag": "browser",
    "template_display_name": "Firefox Browser",
    "template_name": "firefox-browser",
    "trouble": "The X server is missing: install tigervnc-standalone-server.",
    "unusable": "It needs a container runtime, and no cluster has one.",
    "access_token": "eyJhbGciOiJFZERTQSJ9.e30.c2lnbmF0dXJl",
    "address": "192.0.2.7",
    "api_version": "stream.space/v1alpha1",
    "architecture": "x86_64",
    "base_image": "lscr.io/linuxserver/firefox:latest",
    "branch": "main",
    "cause": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "categories": ["Web Browsers"],
    "capabilities": ["Clipboard"],
    "command": ["xterm", "-maximized"],
    "commit": "9fceb02d0ae598e95dc970b74767f19372d61af8",
    "container_port": 3000,
    "cpu": "1000m",
    "cursor": "eyJhZnRlciI6Mn0",
    "detail": "What happened, and what to do about it.",
    "dial_url": "ws://relay.example:8081/tunnels/0f8fad5b",
    "digest": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "display_name": "Firefox Browser",
    "email": "ada@example.org",
    "env": {"TZ": "Europe/Berlin"},
    "expires_in": 900,
    "home": "ada-01234567",
    "icon": "https://example.org/firefox.png",
    "idempotency_key": "7f4e2a",
    "idle_timeout": 3600,
    "instance": "agent-1",
    "kind": "Template",
    "labels": {"zone": "a"},
    "limit": 50,
    "max_duration": 86400,
    "mount_path": "/config",
    "nats_urls": ["nats://nats.example:4222"],
    "path": "/",
    "pointer": "/username",
    "port": 5900,
    "public_key": "UAW4YUIM53FJYG6B57OC3Y7JM3MHXRM2RE2PPIJMBQFEK4DLVMT3WQCU",
    "protocols": ["binary"],
    "refresh_expires_in": 1209600,
    "refresh_token": "cmVmcmVzaA",
    "request_id": "req-0f8fad5b",
    "shm_size": "1Gi",
    "status": 404,
    "tags": ["browser"],
    "template": "starter_firefox-browser",
    "template_digest": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "ticket": "dGlja2V0",
    "title": "Not found",
    "token": "glpat-example",
    "tunnel_id": "0f8fad5b",
    "tunnel_url": "wss://relay.example",
    "type": "https://streamspace.dev/problems/not-found",
    "url": "https://example.org/templates.git",
    "username": "ada",
    "version": 3,
}

_OF_MODEL_FIELD: Mapping[tuple[str, str], object] = {
    ("Actor", "id"): "usr-0123456789abcdef0123456789abcdef",
    ("Actor", "name"): "ada",
    ("Catalog", "name"): "Starter",
    ("AddCatalog", "name"): "Starter",
    ("CatalogAdded", "name"): "Starter",
    ("Cluster", "name"): "Lab",
    ("ClusterEnrolled", "name"): "Lab",
    ("EnrolCluster", "name"): "Lab",
    ("Port", "name"): "vnc",
    ("VolumeMount", "name"): "user-config",
    ("Capacity", "cpu"): 8.0,
    ("Capacity", "memory"): 17179869184,
    ("Heartbeat", "version"): "1.0.0",
    ("Cluster", "version"): "1.0.0",
    ("Port", "protocol"): "TCP",
    ("EnvVar", "name"): "TZ",
    ("EnvVar", "value"): "Europe/Berlin",
    ("TemplateDetail", "manifest"): {"kind": "Template", "metadata": {"name": "firefox-browser"}},
    ("KeySet", "keys"): [{"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": "11qYAYKxCrfVS"}],
    ("TemplatePage", "categories"): {"Web Browsers": 4},
}


def sample(model: type[Model]) -> Model:
    """A complete value of `model`, the same every time."""
    return model.model_validate(_fields(model))


def _fields(model: type[BaseModel]) -> dict[str, object]:
    return {name: _field(model, name, field) for name, field in model.model_fields.items()}


def _field(model: type[BaseModel], name: str, field: FieldInfo) -> object:
    for owner in model.__mro__:
        if (owner.__name__, name) in _OF_MODEL_FIELD:
            return _OF_MODEL_FIELD[owner.__name__, name]
    annotation = _present(field.annotation)
    plain = annotation in (str, int, float) or get_origin(annotation) in (tuple, dict)
    if plain and name in _OF_NAME and _fits(_OF_NAME[name], annotation):
        return _OF_NAME[name]
    return _value(annotation, name)


def _present(annotation: Any) -> Any:
    """The type behind `X | None` and `Annotated[X, ...]`."""
    while True:
        arguments = get_args(annotation)
        if get_origin(annotation) in (Union, types.UnionType):
            annotation = next(part for part in arguments if part is not type(None))
        elif hasattr(annotation, "__metadata__"):
            annotation = arguments[0]
        else:
            return annotation


def _fits(value: object, annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is tuple:
        return isinstance(value, list) and get_args(annotation)[0] is str
    if origin is dict:
        return isinstance(value, dict)
    return isinstance(value, annotation)


def _value(annotation: Any, name: str) -> object:  # noqa: PLR0911 - one case per kind of type
    if annotation in _OF_TYPE:
        return _OF_TYPE[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return arguments[0]
    if origin is tuple:
        return [_value(_present(arguments[0]), name)]
    if origin is dict:
        return {"example": _value(_present(arguments[1]), name)}
    if isinstance(annotation, NewType):
        return _value(annotation.__supertype__, name)
    if annotation is Any:
        return "anything"
    if issubclass(annotation, Enum):
        return next(iter(annotation))
    if issubclass(annotation, BaseModel):
        return _fields(annotation)
    if annotation is int:
        return 2
    return f"example-{name.replace('_', '-')}"
