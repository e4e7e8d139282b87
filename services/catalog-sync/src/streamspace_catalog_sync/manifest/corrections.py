"""Which protocol and port an image is really reached at: the table, and looking it up.

The facts are data, in `corrections.yaml` beside this module, with their source.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from streamspace_common.contracts.catalog import Protocol

_REGISTRY = re.compile(r"^(localhost|[^/]*[.:][^/]*)/")
_IMAGE = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9._:/-]*?)(:(?P<tag>\w[\w.-]{0,127}))?"
    r"(@(?P<digest>[a-z0-9]+:[a-f0-9]{32,128}))?",
    re.IGNORECASE,
)
_PortNumber = Annotated[int, Field(ge=1, le=65535)]


class ImageKind(StrEnum):
    """What an image offers; the comment at the head of the table says more."""

    DESKTOP = "desktop"
    WEB = "web"
    TLS = "tls"
    SERVICE = "service"
    HEADLESS = "headless"


@dataclass(frozen=True)
class KnownImage:
    """What is known of one image; `unusable` says why no session can show it."""

    repository: str
    kind: ImageKind
    port: int | None = None
    shm_size: str | None = None
    needed_env: tuple[str, ...] = ()
    needs: str | None = None
    serves: str | None = None

    @property
    def protocol(self) -> Protocol:
        """All known images that can be shown at all bring their own web client."""
        return Protocol.HTTP

    def unusable(self, env: dict[str, str]) -> str | None:
        """Why a template with this image and environment cannot be used, if so."""
        match self.kind:
            case ImageKind.HEADLESS:
                return "The image has no user interface, so there is nothing to stream."
            case ImageKind.SERVICE:
                return f"The image serves {self.serves}, which a browser cannot show."
            case ImageKind.TLS:
                return (
                    f"The image answers HTTPS only (port {self.port}), "
                    "which sessions are not reached with."
                )
            case _:
                pass
        missing = [name for name in self.needed_env if not env.get(name)]
        if missing:
            return (
                f"The image needs {self.needs} beside it; "
                f"set {' and '.join(missing)} in the template to use it."
            )
        return None


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid")
    namespace: str
    kind: ImageKind
    port: _PortNumber | None = None
    shm_size: str | None = Field(default=None, alias="shmSize")
    note: str | None = None
    images: tuple[str, ...] | dict[str, _PortNumber] | dict[str, str]


class _Need(BaseModel):
    model_config = ConfigDict(extra="forbid")
    env: tuple[str, ...]
    what: str


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")
    groups: tuple[_Group, ...]
    needs: dict[str, _Need]


class Corrections:
    """The table, ready for look-ups."""

    def __init__(self, known: dict[str, KnownImage]) -> None:
        self._known = known

    def __len__(self) -> int:
        return len(self._known)

    def find(self, image: str | None) -> KnownImage | None:
        """What is known of an image reference such as `lscr.io/linuxserver/gimp:latest`."""
        return self._known.get(image_repository(image)) if image else None

    @classmethod
    def parse(cls, document: Any) -> "Corrections":
        """The table from its document.

        Raises:
            pydantic.ValidationError: it is not of the table's shape.
            ValueError: an image is listed twice.
        """
        table = _Table.model_validate(document)
        known: dict[str, KnownImage] = {}
        for group in table.groups:
            for image in _images(group, table.needs):
                if image.repository in known:
                    raise ValueError(f"{image.repository} is listed twice")
                known[image.repository] = image
        if unknown := table.needs.keys() - known.keys():
            raise ValueError(f"needs names images that no group lists: {sorted(unknown)}")
        return cls(known)


def _images(group: _Group, needs: dict[str, _Need]) -> list[KnownImage]:
    facts: dict[str, int | str | None]
    if isinstance(group.images, tuple):
        facts = dict.fromkeys(group.images, None)
    else:
        facts = dict(group.images)
    found = []
    for name, fact in facts.items():
        repository = f"{group.namespace}/{name}" if group.namespace else name
        need = needs.get(repository)
        found.append(
            KnownImage(
                repository=repository,
                kind=group.kind,
                port=fact if isinstance(fact, int) else group.port,
                shm_size=group.shm_size,
                needed_env=need.env if need else (),
                needs=need.what if need else None,
                serves=fact if isinstance(fact, str) else None,
            )
        )
    return found


def is_image_reference(text: str) -> bool:
    """Whether the text can be an image reference; it is never given to a shell."""
    return len(text) <= 512 and _IMAGE.fullmatch(text) is not None


def image_repository(image: str) -> str:
    """The repository of an image reference, without registry, tag and digest.

    `lscr.io/linuxserver/gimp:latest` and `mirror.local:5000/linuxserver/gimp@sha256:..`
    are both `linuxserver/gimp`; `docker.io/library/redis` is `redis`.
    """
    name = image.partition("@")[0].lower()
    head, _, tail = name.rpartition("/")
    name = f"{head}/{tail.partition(':')[0]}" if head else tail.partition(":")[0]
    return _REGISTRY.sub("", name).removeprefix("library/")


def table_text() -> str:
    """The table as shipped; its digest is part of what makes a sync up to date."""
    return resources.files(__package__).joinpath("corrections.yaml").read_text(encoding="utf-8")


@cache
def shipped_corrections() -> Corrections:
    """The table of this version of StreamSpace."""
    return Corrections.parse(yaml.load(table_text(), Loader=yaml.CSafeLoader))
