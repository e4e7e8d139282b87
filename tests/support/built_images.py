"""Our own images, built by `deploy/docker/Dockerfile` on a real engine.

Building takes minutes, so what was built is kept (see `cache`) under a name made from
everything that goes into it, and loaded again until one of these files changes.
"""

import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tests.support import base_images, cache
from tests.support.engine import Engine

REPOSITORY = Path(__file__).parents[2]
_NOT_COPIED = {"node_modules", "__pycache__", ".venv", "dist", "dev"}


def compose_services() -> dict[str, dict[str, Any]]:
    """The services of docker-compose.yml."""
    return dict(yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"])


def names() -> dict[str, dict[str, Any]]:
    """Image name -> its `build` section."""
    return {each["image"]: each["build"] for each in compose_services().values() if "build" in each}


def provide(engine: Engine) -> None:
    """Have them all on the engine.

    Raises:
        debian.UnavailableError: the images they begin from cannot be had.
        EngineError: the Dockerfile does not build.
    """
    archive = cache.folder() / f"built-images-{_key()}.tar"
    with cache.lock("built-images"):
        if archive.exists():
            engine.docker("load", "--input", str(archive))
            return
        base_images.provide(engine, "debian", "python", "node")
        with cache.step("images of deploy/docker"):
            # In the order of its stages, whose earlier ones are then there for the later.
            stages = ["", *re.findall(r" AS (\S+)$", _dockerfile(), re.MULTILINE)]
            for name, build in sorted(
                names().items(), key=lambda b: stages.index(b[1].get("target", ""))
            ):
                _build(engine, name, build)
        for older in cache.folder().glob("built-images-*.tar"):
            older.unlink()
        half = archive.with_suffix(".half")
        engine.docker("save", "--output", str(half), *names())
        half.rename(archive)


def _build(engine: Engine, name: str, build: dict[str, Any]) -> None:
    arguments = [f"--build-arg={key}={value}" for key, value in build.get("args", {}).items()]
    target = ["--target", build["target"]] if "target" in build else []
    engine.docker(
        "build", "--quiet", "--file", str(REPOSITORY / build["dockerfile"]),
        *target, "--tag", name, *arguments, str(REPOSITORY),
        # Debian's engine has no other builder; whatever it builds, BuildKit builds too.
        environment={"DOCKER_BUILDKIT": "0"},
        timeout=1800,
    )  # fmt: skip


def _key() -> str:
    total = [platform.machine(), sys.version, "1"]
    for path in _copied():
        total += [str(path.relative_to(REPOSITORY)), path.read_bytes().hex()]
    return cache.digest(*total)


def _copied() -> Iterator[Path]:
    """Every file that a build may read."""
    yield REPOSITORY / "constraints.txt"
    yield from sorted(p for p in (REPOSITORY / "deploy/docker").rglob("*") if p.is_file())
    for folder in ("libs", "services"):
        for path in sorted((REPOSITORY / folder).rglob("*")):
            parts = set(path.relative_to(REPOSITORY).parts)
            if path.is_file() and not parts & _NOT_COPIED and ".egg-info" not in str(path):
                yield path


def _dockerfile() -> str:
    return (REPOSITORY / "deploy/docker/Dockerfile").read_text()
