"""The cluster's network: one private block, reachable from this machine and from nowhere else.

    10.N.0.0/20     pods, each on a link of its own to the node (the `ptp` plugin): all that
                    pods say to each other passes the node's packet filter, as on a real
                    network, without the kernel's bridge filter
    10.N.128.0/18   services
    10.N.255.1, .2  this machine, and the node

A pair of virtual interfaces joins the two. Address and route out here vanish with it, and
it vanishes with the node's namespace.
"""

import ipaddress
import json
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.kubernetes.onenode.machine import Machine
from tests.support import cache


@dataclass(frozen=True)
class Network:
    block: ipaddress.IPv4Network

    @property
    def pods(self) -> ipaddress.IPv4Network:
        return next(self.block.subnets(new_prefix=20))

    @property
    def services(self) -> ipaddress.IPv4Network:
        return list(self.block.subnets(new_prefix=18))[2]

    @property
    def outside(self) -> str:
        return str(self.block[0xFF01])

    @property
    def node(self) -> str:
        return str(self.block[0xFF02])


def join(machine: Machine) -> Network:
    """Choose a free block and connect the machine with this one by it."""
    link = machine.link
    with cache.lock("network"):
        network = Network(_free_block())
        pid = str(machine.pid)
        _ip("link", "add", link, "type", "veth", "peer", "name", "uplink", "netns", pid)
        _ip("address", "add", f"{network.outside}/30", "dev", link)
        _ip("link", "set", link, "up")
        machine.run("ip", "address", "add", f"{network.node}/30", "dev", "uplink")
        machine.run("ip", "link", "set", "uplink", "up")
        # Only this: whatever else a pod looks for is unreachable at once, not after a timeout.
        machine.run("ip", "route", "add", str(network.services), "dev", "uplink")
        _ip("route", "add", str(network.block), "via", network.node)
    return network


def pod_network(network: Network, folder: Path) -> None:
    """Write what tells the container runtime how pods are connected."""
    folder.mkdir(parents=True)
    description = {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": str(network.pods)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": str(folder / "addresses"),
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    (folder / "10-pods.conflist").write_text(json.dumps(description))


def block(text: str) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(text)


def _free_block() -> ipaddress.IPv4Network:
    routes = json.loads(_ip("-j", "-4", "route", "show", "table", "all"))
    taken = [
        ipaddress.ip_network(route["dst"], strict=False)
        for route in routes
        if route["dst"][0].isdecimal() and not route["dst"].startswith("0.0.0.0/")
    ]
    numbers = list(range(128, 250))
    random.shuffle(numbers)
    for number in numbers:
        block = ipaddress.IPv4Network(f"10.{number}.0.0/16")
        if not any(block.overlaps(other) for other in taken):
            return block
    raise RuntimeError("every block of addresses is in use on this machine")


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
