"""Reading manifests: YAML of any origin in, canonical templates and reasons out. Pure."""

import hashlib

from streamspace_catalog_sync.manifest.corrections import (
    Corrections,
    shipped_corrections,
    table_text,
)
from streamspace_catalog_sync.manifest.reading import (
    API_VERSION,
    MAX_FILE_BYTES,
    MAX_MANIFEST_BYTES,
    RULES_VERSION,
    read_file,
)


def rules_digest() -> str:
    """Changes whenever the same file might be read differently than before."""
    return hashlib.sha256(f"{RULES_VERSION}\n{table_text()}".encode()).hexdigest()


__all__ = [
    "API_VERSION",
    "MAX_FILE_BYTES",
    "MAX_MANIFEST_BYTES",
    "RULES_VERSION",
    "Corrections",
    "read_file",
    "rules_digest",
    "shipped_corrections",
]
