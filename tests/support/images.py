"""Container images without a registry: Debian's packages, and a few files on top.

debootstrap fills a root file system from this machine's own Debian mirror; it becomes
the first layer and is kept (see `cache`), for images with the same packages share it.
An image's own files are a second, small layer. The archive is in the format of
`docker save`, which `ctr images import` and `docker load` both read.

    archive(SESSION)  ->  path of a tar, made at the first call
"""

import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import cache, debian

REPOSITORY = Path(__file__).parents[2]
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

# Nobody reads these in a test, and every start of a cluster unpacks them.
UNREAD = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/icons",
    "var/lib/apt/lists",
    "var/cache/apt",
    "var/cache/debconf",
    "var/log",
)


@dataclass(frozen=True)
class File:
    content: bytes
    mode: int = 0o644
    owner: int = 0


@dataclass(frozen=True)
class Image:
    """What an image holds, and how it starts (`config` as in an image's own config)."""

    tag: str
    packages: tuple[str, ...] = ()
    files: Mapping[str, File] = field(default_factory=dict)
    folders: Mapping[str, int] = field(default_factory=dict)  # path -> owner
    config: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()  # patterns under the root that are left out of the packages


def installed_by(dockerfile: Path) -> tuple[str, ...]:
    """The packages that a Dockerfile installs."""
    text = dockerfile.read_text().replace("\\\n", " ")
    (packages,) = re.findall(r"--no-install-recommends ([^&]+)&&", text)
    return tuple(packages.split())


LIGHT_DESKTOP = b"""#!/bin/sh
# A desktop as a session: an RFB server, a window manager and a terminal.
set -u
export DISPLAY=:0
cd "$HOME" || exit 1
# The blacklist would count probes and port-forwards as failed logins.
Xvnc "$DISPLAY" -rfbport "${RFB_PORT:-5900}" -interface 0.0.0.0 -SecurityTypes None -UseBlacklist=0 \\
  -AlwaysShared -geometry "${GEOMETRY:-1024x768}" -depth 24 -desktop session &
server=$!
trap 'kill "$server" 2>/dev/null' TERM INT
until xsetroot -solid "#2e5e4e" 2>/dev/null; do
  kill -0 "$server" 2>/dev/null || exit 1
  sleep 0.05
done
openbox &
xterm -geometry 100x30+40+40 &
# A signal ends the first wait; the second one is for the server's own end.
wait "$server"
wait "$server"
"""

DESKTOP_PACKAGES = installed_by(REPOSITORY / "deploy/docker/desktop/Dockerfile")
# Half of all the bytes are for programs that no desktop of a test starts: OpenGL's software
# renderer, a C preprocessor for X resources, scripts, readers of rare image formats.
UNUSED = (
    "usr/lib/*/libLLVM*",
    "usr/lib/*/dri",
    "usr/lib/*/libz3*",
    "usr/lib/gcc",
    "usr/bin/*cpp*",
    "usr/lib/*/perl",
    "usr/share/perl",
    "usr/lib/*/libgs.so*",
    "usr/lib/*/libx265.so*",
    "usr/lib/*/libaom.so*",
    "usr/lib/*/libjxl.so*",
    "usr/share/poppler",
    "usr/share/ghostscript",
    "usr/share/mime",
    "usr/share/fonts/type1",
    "usr/share/fonts/opentype",
)
# The lightest desktop there is, for tests by the dozen; the one that is shipped is in
# `desktop_image`, on the same layer of packages.
SESSION = Image(
    tag="streamspace.test/session:1",
    packages=DESKTOP_PACKAGES,
    files={"usr/local/bin/session": File(LIGHT_DESKTOP, mode=0o755)},
    folders={"home/session": 1000},
    config={
        "User": "1000:1000",
        "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/home/session", "LANG=C.UTF-8"],
        "WorkingDir": "/home/session",
        "Entrypoint": ["/usr/local/bin/session"],
        "ExposedPorts": {"5900/tcp": {}},
    },
    without=UNUSED,
)


def archive(image: Image) -> Path:
    """The image as a tar, from the cache or made now.

    Raises:
        debian.UnavailableError: this machine cannot make it, and why.
    """
    base = file_system(image.packages, image.without) if image.packages else None
    top = _files_layer(image)
    layers: list[str | bytes] = [base.stem.rpartition("-")[2] if base else "", top]
    description = json.dumps([image.tag, dict(image.config), 1], sort_keys=True)
    name = re.sub(r"[^a-z0-9.]+", "-", image.tag)
    path = cache.folder() / f"image-{name}-{cache.digest(description, *layers)}.tar"
    with cache.lock(path.stem):
        if not path.exists():
            _write_archive(path, image, base, top)
    return path


def file_system(packages: tuple[str, ...], without: tuple[str, ...] = ()) -> Path:
    """A tar of a root file system with these Debian packages."""
    suite = debian.mirror()
    key = cache.digest(
        suite.name, platform.machine(), "2", *sorted(packages), "-", *without, "-", *UNREAD
    )
    path = cache.folder() / f"debian-{suite.name}-{key}.tar"
    with cache.lock(path.stem):
        if not path.exists():
            with cache.step(f"Debian file system with {', '.join(packages)}"):
                _debootstrap(path, suite, packages, without)
    return path


def _debootstrap(
    path: Path, suite: debian.Mirror, packages: tuple[str, ...], without: tuple[str, ...]
) -> None:
    debian.install({"debootstrap": "debootstrap"})
    if os.geteuid() != 0:
        raise debian.UnavailableError("making a root file system needs root")
    downloads = cache.folder() / "debian-packages"
    downloads.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="root-", dir=cache.folder()) as scratch:
        root = Path(scratch) / "root"
        # Without a sync after every file: what is half made is thrown away anyway.
        settings = root / "etc" / "dpkg" / "dpkg.cfg.d"
        settings.mkdir(parents=True)
        (settings / "unsafe-io").write_text("force-unsafe-io\n")
        _run(
            "debootstrap", "--variant=minbase", f"--include={','.join(packages)}",
            f"--cache-dir={downloads}", *(["--keyring", suite.keyring] if suite.keyring else []),
            suite.name, root, suite.address,
        )  # fmt: skip
        for unread in UNREAD:
            shutil.rmtree(root / unread, ignore_errors=True)
            (root / unread).mkdir(parents=True, exist_ok=True)
        for pattern in without:
            for found in root.glob(pattern):
                if found.is_dir() and not found.is_symlink():
                    shutil.rmtree(found)
                else:
                    found.unlink()
        # Addresses and names of the machine that made it have no place in an image.
        for own in ("etc/apt/sources.list", "etc/hostname", "etc/resolv.conf"):
            (root / own).unlink(missing_ok=True)
        made = Path(scratch) / "made.tar"
        _run("tar", "--numeric-owner", "--sort=name", "--mtime=@0", "-C", root, "-cf", made, ".")
        made.rename(path)


def _run(*arguments: str | Path) -> None:
    # In namespaces of its own: what debootstrap mounts and starts ends with it, come what may.
    contained = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    done = subprocess.run(
        [*contained, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
    )
    if done.returncode != 0:
        words = "\n".join(done.stdout.strip().splitlines()[-20:])
        raise RuntimeError(f"{arguments[0]} failed ({done.returncode}):\n{words}")


def _files_layer(image: Image) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, owner in sorted(image.folders.items()):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, owner, owner
            tar.addfile(entry)
        for name, file in sorted(image.files.items()):
            entry = tarfile.TarInfo(name)
            entry.mode, entry.uid, entry.gid = file.mode, file.owner, file.owner
            entry.size = len(file.content)
            tar.addfile(entry, io.BytesIO(file.content))
    return buffer.getvalue()


def _write_archive(path: Path, image: Image, base: Path | None, top: bytes) -> None:
    layers: list[tuple[str, str]] = []  # name in the archive, digest of the content
    if base is not None:
        with base.open("rb") as file:
            layers.append(("base.tar", hashlib.file_digest(file, "sha256").hexdigest()))
    layers.append(("files.tar", hashlib.sha256(top).hexdigest()))
    config = json.dumps(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": dict(image.config),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for _, digest in layers]},
            "history": [{"created": "1970-01-01T00:00:00Z"} for _ in layers],
        }
    ).encode()
    manifest = [
        {"Config": "config.json", "RepoTags": [image.tag], "Layers": [name for name, _ in layers]}
    ]
    half = path.with_suffix(".half")
    with tarfile.open(half, "w") as tar:
        if base is not None:
            tar.add(base, "base.tar", filter=_anonymous)
        for name, content in (
            ("files.tar", top),
            ("config.json", config),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    half.rename(path)


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry
