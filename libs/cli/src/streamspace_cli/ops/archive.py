"""Backups of streams in one file: a tar with the server's own snapshot of each.

`manifest.json` comes last and names what is inside with its SHA-256, so that a file cut
short, or changed, is refused before anything is replaced by it. The file is for its owner
alone: events tell who used what, when and from where.
"""

import hashlib
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from streamspace_cli.exits import CliError, ExitCode
from streamspace_common.bus import ApiError, StreamCopy, Streams

FORMAT = 1
_MANIFEST = "manifest.json"
_CHUNK = 128 * 1024


@dataclass(frozen=True)
class Entry:
    """One stream in a backup."""

    copy: StreamCopy
    sha256: str
    size: int

    @property
    def member(self) -> str:
        return f"{self.copy.name}.snapshot"

    def as_data(self) -> dict[str, Any]:
        return {
            "stream": self.copy.name,
            "messages": self.copy.messages,
            "size": self.size,
            "firstSequence": self.copy.state.get("first_seq"),
            "lastSequence": self.copy.state.get("last_seq"),
            "sha256": self.sha256,
        }


async def write(
    streams: Streams, names: Sequence[str], path: Path, tell: Callable[[str], None]
) -> list[Entry]:
    """Copy streams into a new file, one after the other.

    Raises:
        CliError: it exists already, or cannot be written.
        BusError: a stream could not be copied.
    """
    if path.exists():
        raise CliError(f"{path} exists already.", ExitCode.CONFLICT)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as out, tarfile.open(fileobj=out, mode="w") as archive:
                entries = [await _add(streams, name, archive, path.parent, tell) for name in names]
                _add_manifest(archive, entries)
                out.flush()
                os.fsync(out.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error.strerror}.") from error
    return entries


async def _add(
    streams: Streams, name: str, archive: tarfile.TarFile, folder: Path, tell: Callable[[str], None]
) -> Entry:
    digest = hashlib.sha256()
    # A tar says a member's size before its content, which is known only afterwards.
    with tempfile.TemporaryFile(dir=folder) as body:

        def keep(chunk: bytes) -> None:
            digest.update(chunk)
            body.write(chunk)

        copy = await streams.copy(name, keep)
        entry = Entry(copy, digest.hexdigest(), body.tell())
        body.seek(0)
        archive.addfile(_member(entry.member, entry.size), body)
    tell(f"{name}: {copy.messages} messages")
    return entry


def _add_manifest(archive: tarfile.TarFile, entries: Sequence[Entry]) -> None:
    manifest = {
        "format": FORMAT,
        "madeAt": datetime.now(UTC).isoformat(),
        "streams": [
            {
                "config": dict(entry.copy.config),
                "state": dict(entry.copy.state),
                "sha256": entry.sha256,
                "size": entry.size,
            }
            for entry in entries
        ],
    }
    with tempfile.TemporaryFile() as body:
        body.write(json.dumps(manifest, indent=2).encode())
        size = body.tell()
        body.seek(0)
        archive.addfile(_member(_MANIFEST, size), body)


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    info.mtime = int(datetime.now(UTC).timestamp())
    return info


def check(path: Path) -> list[Entry]:
    """What a backup holds, once all of it has been read and found whole.

    Raises:
        CliError: it cannot be read, is none, or is damaged.
    """
    try:
        with tarfile.open(path) as archive:
            kept = json.load(_open(archive, _MANIFEST, path))
            if kept["format"] != FORMAT:
                raise CliError(f"{path} was made by another version (format {kept['format']}).")
            entries = [
                Entry(StreamCopy(one["config"], one["state"]), one["sha256"], one["size"])
                for one in kept["streams"]
            ]
            for entry in entries:
                digest = hashlib.sha256()
                for chunk in _chunks(_open(archive, entry.member, path)):
                    digest.update(chunk)
                if digest.hexdigest() != entry.sha256:
                    raise CliError(f"{path} is damaged: {entry.member} is not what it was.")
    except (tarfile.TarError, ValueError, KeyError, TypeError, EOFError) as error:
        raise CliError(f"{path} is not a backup of streams, or is not whole.") from error
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror or error}.") from error
    return entries


async def restore(
    streams: Streams, path: Path, *, replace: bool, tell: Callable[[str], None]
) -> list[Entry]:
    """Put the streams of a backup back; with `replace`, in the place of those that exist.

    Raises:
        CliError: the backup is damaged, or streams exist that may not be replaced.
        BusError: the server does not take it.
    """
    entries = check(path)
    existing = [entry.copy.name for entry in entries if await _exists(streams, entry.copy.name)]
    if existing and not replace:
        raise CliError(
            f"These streams exist: {', '.join(existing)}.",
            ExitCode.CONFLICT,
            hint="Stop the services, and give --replace to lose what is in them now.",
        )
    with tarfile.open(path) as archive:
        for entry in entries:
            if entry.copy.name in existing:
                await streams.delete(entry.copy.name)
            await streams.restore(entry.copy, _chunks(_open(archive, entry.member, path)))
            tell(f"{entry.copy.name}: {entry.copy.messages} messages")
    return entries


async def _exists(streams: Streams, name: str) -> bool:
    try:
        await streams.state(name)
    except ApiError as error:
        if error.is_missing:
            return False
        raise
    return True


def _open(archive: tarfile.TarFile, name: str, path: Path) -> IO[bytes]:
    found = archive.extractfile(name)
    if found is None:
        raise CliError(f"{path} is not a backup of streams.")
    return found


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk
