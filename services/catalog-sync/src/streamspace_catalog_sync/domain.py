"""What a sync is about: files of a catalog, and what was made of each.

Everything here is a plain value. `Reading` is the outcome of one document of one
file; a file with several documents gives several, their paths told apart by `#2`,
`#3` and so on.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from streamspace_common.contracts.catalog import FileOutcome, TemplateManifest
from streamspace_common.contracts.ids import CatalogId, TemplateId

STARTER = CatalogId("starter")
"""The catalog that comes with StreamSpace itself."""


@dataclass(frozen=True)
class SourceFile:
    """A YAML file of a catalog; `problem` says why there is no content to read."""

    path: str
    content: bytes = b""
    problem: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """All YAML files of a catalog at one commit."""

    commit: str
    files: tuple[SourceFile, ...]


@dataclass(frozen=True)
class Unchanged:
    """The source is still at the commit that was read last."""

    commit: str


@dataclass(frozen=True)
class CanonicalTemplate:
    """A manifest in the form that is published, with its digest."""

    manifest: TemplateManifest
    document: dict[str, Any]
    digest: str
    unusable: str | None


@dataclass(frozen=True)
class Reading:
    """What was made of one document: a template, or why not."""

    path: str
    outcome: FileOutcome
    reasons: tuple[str, ...] = ()
    template: CanonicalTemplate | None = None
    port_agrees: bool = True
    """Whether the port it declared is the one its image is known to listen on."""


@dataclass(frozen=True)
class Wanted:
    """A template that the catalog says should exist."""

    id: TemplateId
    path: str
    template: CanonicalTemplate


@dataclass(frozen=True)
class Stored:
    """As much of a stored template as a plan needs."""

    id: TemplateId
    digest: str
    path: str
    unusable: str | None


@dataclass(frozen=True)
class Changes:
    """What makes the stored templates those that are wanted.

    `moved` are templates whose manifest is the same but whose file is another one:
    stored anew, but nobody has to be told.
    """

    publish: tuple[Wanted, ...] = ()
    withdraw: tuple[TemplateId, ...] = ()
    moved: tuple[Wanted, ...] = field(default=())

    @property
    def is_empty(self) -> bool:
        return not (self.publish or self.withdraw)


class SourceError(Exception):
    """A catalog could not be read; nothing of it is changed.

    The message is for the person who added it: what happened, and what to do.
    """

    code = "catalog-invalid"

    def __str__(self) -> str:
        return f"{self.code}: {self.args[0] if self.args else ''}"


class CatalogUnreachableError(SourceError):
    """Nobody answered, or not in time; trying again may help."""

    code = "catalog-unreachable"


class CatalogRefusedError(SourceError):
    """Whoever answered wants other credentials."""

    code = "catalog-refused"


def canonical_json(document: Any) -> bytes:
    """The one way a document is written: sorted keys, no spaces, UTF-8."""
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode("utf-8")


def digest_of(document: Any) -> str:
    """`sha256:` and the hex digest of the canonical JSON."""
    return f"sha256:{hashlib.sha256(canonical_json(document)).hexdigest()}"
