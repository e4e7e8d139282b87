"""What sessions of these tests are made of; the cluster has to have it all.

Each is a few files on one layer of packages, so that the second and third weigh nothing.
"""

from pathlib import Path

from tests.support import images
from tests.support.desktop_image import desktop_image
from tests.support.images import File, Image

WEB = Image(
    tag="streamspace.test/web:1",
    packages=images.SESSION.packages,
    without=images.SESSION.without,
    files={"web_server.py": File(Path(__file__).with_name("web_server.py").read_bytes())},
    folders=images.SESSION.folders,
    config={
        **images.SESSION.config,
        "Entrypoint": ["/usr/bin/python3", "-I", "/web_server.py"],
        "ExposedPorts": {"8000/tcp": {}},
    },
)


def names() -> list[str]:
    return [image.tag for image in _all()]


def archives() -> list[Path]:
    """All of them, as archives.

    Raises:
        debian.UnavailableError: this machine cannot make them, and why.
    """
    return [images.archive(image) for image in _all()]


def _all() -> tuple[Image, ...]:
    return images.SESSION, WEB, desktop_image()
