"""Builds the agents' ingress and runs it."""

import asyncio
from dataclasses import dataclass
from typing import Any

from streamspace_common.runtime import logging
from streamspace_common.runtime.settings import load
from streamspace_common.runtime.supervisor import Supervisor, run_service
from streamspace_common.web import health
from streamspace_vnc_proxy.agent_ingress.certificate import Certificate
from streamspace_vnc_proxy.agent_ingress.routes import IngressRouter
from streamspace_vnc_proxy.agent_ingress.settings import SERVICE, AgentIngressSettings, address
from streamspace_vnc_proxy.front import DataPort
from streamspace_vnc_proxy.handover import HandOvers

log = logging.get_logger(__name__)


@dataclass(frozen=True)
class Running:
    """A started ingress: where it listens."""

    port: int
    health_port: int
    certificate: Certificate


async def start(settings: AgentIngressSettings, supervisor: Supervisor) -> Running:
    """Build everything, take connections, and register how it ends with the supervisor.

    Raises:
        FatalError: the certificate is no good, or the port cannot be had.
    """
    certificate = Certificate(settings.certificate_file, settings.key_file)
    hand_overs = HandOvers()
    port = DataPort(
        IngressRouter(address(settings.bus_address), address(settings.relay_address), hand_overs)
    )
    checks = health.Health()
    checks.add("port", lambda: port.listening)
    probes = await health.serve(
        health.create_app(checks, SERVICE), settings.health_host, settings.health_port
    )
    asyncio.get_running_loop().set_exception_handler(_on_loop_error)
    await port.open(settings.listen_host, settings.listen_port, certificate.context)
    supervisor.spawn("certificate", certificate.keep_fresh)
    supervisor.on_draining(checks.drain)
    supervisor.on_drain("port", port.close)
    # Their agents come again; the bus and streams go on where they were.
    supervisor.on_drain("connections", hand_overs.close)
    supervisor.on_drain("probes", probes.stop)
    return Running(port.port, probes.port, certificate)


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Leave out what any stranger can cause: a handshake broken off.

    aiofastnet 1.2 reports it as an error of the program, with the exception's class in the
    exception's place, which the loop's own handler cannot print.
    """
    error = context.get("exception")
    kind = error if isinstance(error, type) else type(error)
    if issubclass(kind, OSError):
        log.debug("connection lost", what=context["message"], error=kind.__name__)
    else:
        loop.default_exception_handler(context)


async def serve(settings: AgentIngressSettings) -> None:
    """Run until a signal."""
    supervisor = Supervisor(SERVICE, drain_timeout=settings.drain_timeout)
    running = await start(settings, supervisor)
    log.info(
        "serving",
        host=settings.listen_host,
        port=running.port,
        health_port=running.health_port,
    )
    await supervisor.run()


def main() -> None:
    """Console script `streamspace-agent-ingress`."""
    settings = load(AgentIngressSettings)
    logging.configure(SERVICE, settings.log_level, settings.log_format)
    run_service(lambda: serve(settings))


if __name__ == "__main__":
    main()
