"""Reading a commit's files straight from the object store.

Nothing is checked out: a path in a tree is only ever a text in a report, so no
name can lead out of a folder, and a link is never followed.
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass

from dulwich.object_store import BaseObjectStore
from dulwich.objects import S_ISGITLINK, Blob, Commit, ObjectID, Tag, Tree

from streamspace_catalog_sync.domain import SourceError, SourceFile
from streamspace_catalog_sync.source.limits import Limits

_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class _Entry:
    path: str
    mode: int
    id: ObjectID


def peel(store: BaseObjectStore, id_: ObjectID) -> Commit:
    """The commit that an id names, through any annotated tags.

    Raises:
        SourceError: it names something else.
    """
    for _ in range(10):
        found = store[id_]
        if isinstance(found, Commit):
            return found
        if not isinstance(found, Tag):
            break
        id_ = found.object[1]
    raise SourceError("The branch does not name a commit.")


def yaml_files(store: BaseObjectStore, commit: Commit, limits: Limits) -> list[SourceFile]:
    """All YAML files of a commit in the order of their paths.

    Raises:
        SourceError: there are more files, folders or bytes than a catalog may have.
    """
    files: list[SourceFile] = []
    total = 0
    for entry in _entries(store, commit, limits):
        if not entry.path.lower().endswith(_SUFFIXES) and not S_ISGITLINK(entry.mode):
            continue
        if len(files) >= limits.files:
            raise SourceError(f"The catalog holds more than {limits.files} YAML files.")
        file = _file(store, entry, limits)
        total += len(file.content)
        if total > limits.total_bytes:
            size = limits.total_bytes // (1024 * 1024)
            raise SourceError(f"The catalog's YAML files are larger than {size} MiB together.")
        files.append(file)
    return sorted(files, key=lambda file: file.path)


def _entries(store: BaseObjectStore, commit: Commit, limits: Limits) -> Iterator[_Entry]:
    """Every entry below the commit; a tree may name itself many times over, so they are counted."""
    waiting: list[tuple[str, ObjectID, int]] = [("", commit.tree, 0)]
    read: dict[ObjectID, Tree] = {}
    seen = 0
    while waiting:
        folder, id_, depth = waiting.pop()
        tree = read.get(id_) or store[id_]
        if not isinstance(tree, Tree):
            raise SourceError(f"The folder {folder or '/'} is not a folder in git.")
        read[id_] = tree
        for item in tree.iteritems():
            seen += 1
            if seen > limits.entries or depth > limits.depth:
                raise SourceError("The repository holds too many files, or nests too deeply.")
            path = folder + item.path.decode("utf-8", "backslashreplace")
            if stat.S_ISDIR(item.mode):
                waiting.append((f"{path}/", item.sha, depth + 1))
            else:
                yield _Entry(path, item.mode, item.sha)


def _file(store: BaseObjectStore, entry: _Entry, limits: Limits) -> SourceFile:
    if S_ISGITLINK(entry.mode):
        return SourceFile(entry.path, problem="a submodule; only the catalog's own files are read")
    if stat.S_ISLNK(entry.mode):
        return SourceFile(entry.path, problem="a symbolic link, which is not followed")
    blob = store[entry.id]
    if not isinstance(blob, Blob):
        raise SourceError(f"{entry.path} is not a file in git.")
    # One byte over the limit is enough to see that the file is too large.
    return SourceFile(entry.path, content=blob.as_raw_string()[: limits.file_bytes + 1])
