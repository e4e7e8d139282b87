"""The starter catalog: files of this package, read without git.

Its commit is the digest of its files, so that a new version of StreamSpace with the
same templates changes nothing.
"""

import hashlib
from importlib import resources

from streamspace_catalog_sync.domain import Snapshot, SourceFile


def starter_snapshot() -> Snapshot:
    """All files of the starter catalog as shipped."""
    folder = resources.files("streamspace_catalog_sync").joinpath("starter")
    files = sorted(
        (
            SourceFile(entry.name, entry.read_bytes())
            for entry in folder.iterdir()
            if entry.name.endswith(".yaml")
        ),
        key=lambda file: file.path,
    )
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.path.encode() + b"\0" + file.content + b"\0")
    return Snapshot(commit=digest.hexdigest()[:40], files=tuple(files))
