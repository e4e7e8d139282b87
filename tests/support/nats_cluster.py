"""NATS servers of one installation on loopback: one, or three as `deploy/k8s/nats/cluster` runs.

Three trust the same operator, speak TLS from the first byte to clients and mutual TLS to
each other, and know each other by their routes. Each is ready when its `/healthz` says that
all its streams and consumers are as new as those of the others: the startup probe that
keeps a rolling upgrade from taking the next server too early.
"""

import json
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

from streamspace_common.bus import credentials
from streamspace_embedded import certificates
from streamspace_embedded.children import Program, http_probe
from streamspace_embedded.ports import free_port
from streamspace_embedded.servers import nats_executable

NAME = "localhost"
"""What clients and servers call each other: a certificate is for names."""


class NatsServer(Program):
    """One server."""

    def __init__(self, name: str, config: Path, monitoring_port: int) -> None:
        super().__init__(
            name,
            [nats_executable(), "-c", str(config)],
            log=config.with_suffix(".log"),
            probe=http_probe(f"http://127.0.0.1:{monitoring_port}/healthz"),
            # The grace period and duration of lame duck mode, and then some.
            stop_timeout=30.0,
        )

    def kill(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()

    def leave(self) -> None:
        """Lame duck mode, as `preStop` asks for: clients are sent away first, then it ends."""
        process = self._process
        if process is not None and process.poll() is None:
            os.kill(process.pid, signal.SIGUSR2)
            process.wait(60)


class NatsCluster:
    """The servers `nats-1`, ..., and how to reach them.

    Args:
        folder: for configurations, stores and logs.
        trust: whom they trust.
        count: 1 or 3.
    """

    def __init__(self, folder: Path, trust: credentials.Trust, *, count: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._count = count
        self._ports = [free_port() for _ in range(count)]
        self._routes = [free_port() for _ in range(count)]
        self._folder = folder
        if count > 1:
            self._write_certificates()
        self.servers: dict[str, NatsServer] = {}
        for number in range(count):
            name = f"nats-{number + 1}"
            monitoring = free_port()
            text = credentials.server_config(
                trust,
                port=self._ports[number],
                store_dir=folder / name,
                http_port=monitoring,
                name=name,
            )
            config = folder / f"{name}.conf"
            config.write_text(text + (self._cluster(number) if count > 1 else ""))
            self.servers[name] = NatsServer(name, config, monitoring)

    @property
    def port(self) -> int:
        """The first server's."""
        return self._ports[0]

    def settings(self) -> dict[str, str]:
        """What services need beyond the settings for a single server."""
        if self._count == 1:
            return {}
        return {
            "STREAMSPACE_NATS_URL": ",".join(f"tls://{NAME}:{port}" for port in self._ports),
            "STREAMSPACE_NATS_CA_FILE": str(self._folder / "ca.crt"),
            "STREAMSPACE_SESSION_NATS_REPLICAS": str(self._count),
        }

    def _write_certificates(self) -> None:
        now = datetime.now(UTC)
        authority = certificates.new_authority(now)
        server = certificates.new_server(authority, [NAME], now)
        (self._folder / "ca.crt").write_text(authority.certificate)
        (self._folder / "tls.crt").write_text(server.certificate)
        (self._folder / "tls.key").write_text(server.key)

    def _cluster(self, number: int) -> str:
        files = {
            "cert_file": self._folder / "tls.crt",
            "key_file": self._folder / "tls.key",
        }
        pair = "\n".join(f"  {name}: {json.dumps(str(path))}" for name, path in files.items())
        routes = ", ".join(json.dumps(f"nats://{NAME}:{port}") for port in self._routes)
        return f"""
tls {{
{pair}
  handshake_first: true
  timeout: 5
}}
cluster {{
  name: streamspace
  listen: "127.0.0.1:{self._routes[number]}"
  no_advertise: true
  routes: [{routes}]
  tls {{
{pair}
    ca_file: {json.dumps(str(self._folder / "ca.crt"))}
    verify: true
    timeout: 5
  }}
}}
"""
