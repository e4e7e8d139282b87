"""The image of sessions that is shipped, made from deploy/docker/desktop without an engine.

Its packages, its files and how it starts are read from the Dockerfile, and its files are
filled in by the script that fills them in there; a cluster without a registry gets it so.
"""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml
from tests.support.images import DESKTOP_PACKAGES, REPOSITORY, UNUSED, File, Image

SOURCE = REPOSITORY / "deploy/docker/desktop"
USER = 1000
_ASSETS = REPOSITORY / "services/agent/src/streamspace_agent/runtimes/process/assets"
_PLACE = "/usr/local/share/streamspace"
_ACCOUNTS = f"""root:x:0:0:root:/root:/bin/bash
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
user:x:{USER}:{USER}::/home/user:/bin/bash
""".encode()


def desktop_image() -> Image:
    """The image, under the name that the starter catalog knows it by."""
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    return Image(
        tag=compose["services"]["desktop"]["image"],
        packages=DESKTOP_PACKAGES,
        without=UNUSED,
        files={"etc/passwd": File(_ACCOUNTS)} | _files(),
        folders={"home/user": USER},
        config=_config(),
    )


def _files() -> dict[str, File]:
    """What the Dockerfile copies, and what `configure` makes of it."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        assets = root / _PLACE.lstrip("/") / "assets"
        for path in _ASSETS.rglob("*"):
            if path.is_file():
                target = assets / path.relative_to(_ASSETS)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        subprocess.run([str(SOURCE / "configure"), f"{_PLACE}/assets", _PLACE, scratch], check=True)
        made = {
            str(path.relative_to(root)): File(path.read_bytes())
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }
    programs = {
        f"usr/local/bin/{name}": File((SOURCE / name).read_bytes(), mode=0o755)
        for name in ("configure", "session")
    }
    return made | programs


def _config() -> dict[str, Any]:
    text = (SOURCE / "Dockerfile").read_text().replace("\\\n", " ")

    def said(instruction: str) -> str:
        (found,) = re.findall(rf"^{instruction} (.*)$", text, re.MULTILINE)
        return str(found)

    return {
        "User": said("USER"),
        "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", *said("ENV").split()],
        "WorkingDir": said("WORKDIR"),
        "Entrypoint": yaml.safe_load(said("ENTRYPOINT")),
        "ExposedPorts": {f"{port}/tcp": {} for port in said("EXPOSE").split()},
    }
