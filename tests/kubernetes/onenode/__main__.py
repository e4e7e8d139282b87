"""A cluster to develop against.

python -m tests.kubernetes.onenode prepare           download and build, and nothing more
python -m tests.kubernetes.onenode images            print the session images' archives, for
                                                     a cluster of your own
python -m tests.kubernetes.onenode up --state DIR    start one and leave it running
python -m tests.kubernetes.onenode load --state DIR ARCHIVE
python -m tests.kubernetes.onenode down --state DIR
"""

import argparse
import os
import sys
from pathlib import Path

from tests.kubernetes import session_images
from tests.kubernetes.onenode import cluster, machine
from tests.support import debian


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["prepare", "images", "up", "load", "down"])
    parser.add_argument("archive", nargs="*", type=Path)
    parser.add_argument("--state", type=Path, default=Path("/tmp/streamspace-cluster"))
    arguments = parser.parse_args()
    try:
        act(arguments.what, arguments.state.absolute(), arguments.archive)
    except (debian.UnavailableError, cluster.ClusterError, machine.MachineError) as error:
        sys.exit(str(error))


def act(what: str, state: Path, archives: list[Path]) -> None:
    if what == "prepare":
        if os.environ.get("KUBECONFIG"):
            return
        cluster.prepare()
        session_images.archives()
        return
    if what == "images":
        print(*session_images.archives(), sep="\n")
        return
    if what == "up":
        started = cluster.Cluster.up(state, session_images.archives(), detached=True)
        print(f"export KUBECONFIG={started.kubeconfig}")
        print(f"{state}/kubectl get pods --all-namespaces")
        return
    running = cluster.Cluster.found(state)
    if what == "load":
        for archive in archives:
            print(*running.load(archive))
    else:
        running.down()


if __name__ == "__main__":
    main()
