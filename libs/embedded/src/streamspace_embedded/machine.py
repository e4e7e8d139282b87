"""Whether this machine has what `up` needs, asked before anything starts."""

import shutil

from streamspace_embedded.children import StartError
from streamspace_embedded.ingress import Ingress
from streamspace_embedded.ports import LOOPBACK, obstacle

DESKTOP_PROGRAMS = {"Xvnc": "tigervnc-standalone-server", "openbox": "openbox", "xterm": "xterm"}


def check_machine(port: int, stream_port: int, ingress: Ingress | None) -> str | None:
    """What the person should know before it starts.

    Raises:
        StartError: it cannot work, in one sentence.
    """
    wanted = [(LOOPBACK, port, "PORT"), (LOOPBACK, stream_port, "STREAM_PORT")]
    if ingress is not None:
        wanted.append((ingress.listen, ingress.port, "AGENTS_PORT"))
    for host, number, option in wanted:
        why = obstacle(number, host)
        if why is not None:
            raise StartError(
                f"Port {number} {why}. Change that, or choose another one: "
                f"make up {option}={number + (8000 if number < 1024 else 1000)}"
            )
    missing = [
        package for program, package in DESKTOP_PROGRAMS.items() if not shutil.which(program)
    ]
    if not missing:
        return None
    return (
        "Desktops cannot start before you install some programs:\n"
        f"    sudo apt-get install --no-install-recommends {' '.join(missing)}"
    )
