"""What each release said, kept for ever: `proto/corpus/<release>/`.

A release is frozen once: its schemas and examples are copied beside a manifest with their
digests. From then on every version has to read them and understand the same by them; and
tests let an agent speak that speaks only what they know (`testing.older`).
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from streamspace_common.contracts import subjects
from streamspace_common.contracts.base import Contract
from streamspace_common.contracts.commands import COMMAND_TYPES
from streamspace_common.contracts.events import Event
from streamspace_common.protogen.catalogue import payloads

CORPUS, MANIFEST = "corpus", "manifest.json"
_FOLDERS = ("schemas", "examples")
_VERSION = re.compile(r"^\d+\.\d+\.\d+$")


class CannotFreezeError(Exception):
    """The release was frozen before, or is called what no release is."""


def releases(directory: Path) -> list[Path]:
    """The folders of all frozen releases, the oldest first."""
    found = (path for path in (directory / CORPUS).glob("*") if _VERSION.match(path.name))
    return sorted(found, key=lambda path: tuple(map(int, path.name.split("."))))


def freeze(directory: Path, version: str) -> Path:
    """Copy what `proto/` holds today; returns the release's folder.

    Raises:
        CannotFreezeError: there is such a folder already, or this is no version.
    """
    if not _VERSION.match(version):
        raise CannotFreezeError(f"{version!r} is no version; one is written as 1.2.3.")
    release = directory / CORPUS / version
    if release.exists():
        raise CannotFreezeError(f"{release} is frozen; what a release said does not change.")
    for folder in _FOLDERS:
        shutil.copytree(directory / folder, release / folder)
    manifest = {str(path.relative_to(release)): _entry(path) for path in _files(release)}
    text = json.dumps({"release": version, "files": manifest}, indent=2)
    (release / MANIFEST).write_text(f"{text}\n")
    return release


def trouble(directory: Path) -> Iterator[str]:
    """Everything in the corpus that is not as it was, or that we no longer understand."""
    for release in releases(directory):
        yield from _tampering(release)
        yield from _losses(release)


def _tampering(release: Path) -> Iterator[str]:
    try:
        kept = json.loads((release / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError):
        yield f"{release / MANIFEST} cannot be read"
        return
    held = {str(path.relative_to(release)): path for path in _files(release)}
    yield from (f"{release / name} is gone from a frozen release" for name in kept.keys() - held)
    yield from (f"{release / name} was added to a frozen release" for name in held.keys() - kept)
    for name in sorted(kept.keys() & held):
        if _digest(held[name]) != kept[name]["sha256"]:
            yield f"{held[name]} was changed in a frozen release"


def _losses(release: Path) -> Iterator[str]:
    try:
        kept = json.loads((release / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError):
        return
    for path in sorted((release / "examples").glob("*.json")):
        entry = kept.get(str(path.relative_to(release)), {})
        yield from (f"{path}: {loss}" for loss in losses(path, entry.get("subject")))


def losses(example: Path, subject: str | None) -> Iterator[str]:
    """What a reader of today does not understand of it as a reader of its time did."""
    payload = payloads().get(name_of(example))
    if payload is None:
        yield "nothing reads it any more"
        return
    said = json.loads(example.read_text())
    try:
        understood = payload.model.from_json(example.read_text())
    except ValidationError as error:
        yield f"it no longer parses: {error}"
        return
    yield from (f"{place} is lost" for place in _missing(said, json.loads(understood.to_json())))
    if subject_of(understood) != subject:
        yield f"it belonged on {subject} and would go on {subject_of(understood)}"


def name_of(example: Path) -> str:
    """The payload's name; `<name>@2.json` is a further example of it."""
    return example.stem.partition("@")[0]


def subject_of(value: Contract) -> str | None:
    """Where a command or an event is published; None for what has no one place."""
    if isinstance(value, Event):
        return value.subject
    if isinstance(value, COMMAND_TYPES):
        return subjects.command(value.cluster_id, value.session_id)
    return None


def _missing(said: Any, understood: Any, place: str = "") -> Iterator[str]:
    """Places in what was said whose value is another one, or none, in what was understood."""
    if isinstance(said, dict) and isinstance(understood, dict):
        for name, value in said.items():
            if name not in understood:
                yield f"{place}/{name}"
            else:
                yield from _missing(value, understood[name], f"{place}/{name}")
    elif isinstance(said, list) and isinstance(understood, list) and len(said) == len(understood):
        for number, (one, other) in enumerate(zip(said, understood, strict=True)):
            yield from _missing(one, other, f"{place}/{number}")
    elif said != understood:
        yield place or "/"


def _entry(path: Path) -> dict[str, str]:
    entry = {"sha256": _digest(path)}
    if path.parent.name == "examples":
        subject = subject_of(payloads()[name_of(path)].model.from_json(path.read_text()))
        if subject is not None:
            entry["subject"] = subject
    return entry


def _files(release: Path) -> list[Path]:
    return sorted(path for folder in _FOLDERS for path in (release / folder).glob("*"))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
