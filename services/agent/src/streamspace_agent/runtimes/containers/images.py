"""What is known of images beyond their templates: where the home is, who they run as.

Template catalogs are full of images from a few families. LinuxServer's begin as root
(s6), make their home theirs and only then step down, so they cannot bear
`allowPrivilegeEscalation: false`, which would take their `sudo`. Kasm's run as user 1000.
"""

from collections.abc import Mapping

from streamspace_common.contracts.catalog import TemplateManifest, VolumeMount

_LINUXSERVER = (
    "lscr.io/linuxserver/",
    "linuxserver/",
    "ghcr.io/linuxserver/",
    "docker.io/linuxserver/",
)
_KASM = ("kasmweb/", "docker.io/kasmweb/")
_HOME_NAMES = frozenset({"user-home", "home", "config"})

HOME_PATH = "/home/user"
"""Where the home is in images nothing is known of; `HOME` says so to their programs."""


def pulled_from(image: str, mirrors: Mapping[str, str]) -> str:
    """The name under which an image is fetched here.

    Args:
        image: as its template says.
        mirrors: beginnings of names, and what stands there instead; the longest counts.
    """
    known = [begin for begin in mirrors if image.startswith(begin)]
    if not known:
        return image
    begin = max(known, key=len)
    return mirrors[begin] + image.removeprefix(begin)


def is_linuxserver(manifest: TemplateManifest) -> bool:
    return (manifest.spec.base_image or "").startswith(_LINUXSERVER)


def bears_no_new_privileges(manifest: TemplateManifest) -> bool:
    """Whether the image works when no process of it may gain rights (`sudo`, setuid)."""
    return not is_linuxserver(manifest)


def home_mount(manifest: TemplateManifest) -> VolumeMount | None:
    """The mount the template means for the home, None when it declares none."""
    mounts = manifest.spec.volume_mounts
    return next(
        (each for each in mounts if each.name in _HOME_NAMES), mounts[0] if mounts else None
    )


def home_path(manifest: TemplateManifest) -> str:
    """Where the home is mounted."""
    mount = home_mount(manifest)
    if mount is not None:
        return mount.mount_path
    image = manifest.spec.base_image or ""
    if image.startswith(_LINUXSERVER):
        return "/config"
    if image.startswith(_KASM):
        return "/home/kasm-user"
    return next((e.value for e in manifest.spec.env if e.name == "HOME" and e.value), HOME_PATH)
