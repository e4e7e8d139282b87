"""How much a catalog may hold and how long it may take, and the talk with the reader."""

from datetime import timedelta
from typing import Literal

from pydantic import BaseModel, Field

from streamspace_common.contracts.base import Secret

MEBIBYTE = 1024 * 1024


class Limits(BaseModel):
    """Sizes in bytes. Real catalogs hold a few hundred files of 2 KiB."""

    files: int = 5_000
    file_bytes: int = 64 * 1024
    total_bytes: int = 32 * MEBIBYTE
    entries: int = 100_000
    depth: int = 32
    download_bytes: int = 256 * MEBIBYTE
    memory_bytes: int = 1024 * MEBIBYTE
    silence: timedelta = timedelta(seconds=15)
    """How long a connection may take to open, or stay silent."""
    deadline: timedelta = timedelta(minutes=2)
    """How long reading a catalog may take in all; then the reader is killed."""


class ReadRequest(BaseModel):
    """What the reader process is asked, on its standard input."""

    transport: Literal["http", "ssh", "local"]
    url: str
    branch: str | None = None
    token: Secret | None = None
    known_commit: str | None = None
    cache: str
    private_addresses: bool = True
    ssh_key: str | None = None
    limits: Limits = Limits()


class ReadFile(BaseModel):
    path: str
    content: str = Field(default="", description="Base64.")
    problem: str | None = None


class ReadReply(BaseModel):
    """What it answers on its standard output: a commit, or an error in words."""

    commit: str | None = None
    unchanged: bool = False
    files: tuple[ReadFile, ...] = ()
    error: Literal["unreachable", "refused", "invalid"] | None = None
    message: str = ""
