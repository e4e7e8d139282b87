"""Builds an agent from its settings and runs it; everything is put together here by hand.

The end, in order: say that no more work is wanted, finish the commands in hand, close the
tunnels (their viewers come again), let go of the sessions, leave the bus.
"""

import asyncio
import os
import platform
import secrets
import socket
from collections.abc import Callable, Coroutine
from datetime import timedelta
from importlib.metadata import version
from typing import Any

from streamspace_agent.consumer import command_loop
from streamspace_agent.credential import WorkingCredential
from streamspace_agent.deaths import report_deaths
from streamspace_agent.effects import EffectsFile, EffectsFileError, Recorded
from streamspace_agent.enrolment import Membership, from_file, from_setting, join
from streamspace_agent.handlers import CommandHandler
from streamspace_agent.heartbeat import Identity, Pulse
from streamspace_agent.joining import asking
from streamspace_agent.keeping import CredentialFile
from streamspace_agent.offers import kubernetes_options, offered_capacity
from streamspace_agent.ports import Runtime
from streamspace_agent.publishing import BusAnnouncer, BusEvents
from streamspace_agent.reports import Reporter
from streamspace_agent.runtimes.null import NullOptions, NullRuntime
from streamspace_agent.runtimes.process.paths import Layout, UnsafeDirectoryError
from streamspace_agent.runtimes.process.runtime import ProcessRuntime
from streamspace_agent.runtimes.process.starts import ProcessOptions
from streamspace_agent.settings import AgentSettings
from streamspace_agent.tunnels import Tunnels, dialling
from streamspace_common.bus import Bus, RetryPolicy
from streamspace_common.contracts import permissions
from streamspace_common.contracts.catalog import RuntimeKind
from streamspace_common.contracts.ids import slug
from streamspace_common.contracts.requests import AgentMethods
from streamspace_common.runtime import logging, tracing
from streamspace_common.runtime.clock import SystemClock
from streamspace_common.runtime.proxies import Proxies, checked
from streamspace_common.runtime.settings import load
from streamspace_common.runtime.supervisor import FatalError, Supervisor, run_service
from streamspace_common.web.health import Health, create_app, serve

log = logging.get_logger(__name__)

_SERVICE = "agent"
_LEAVE_TO_LATER_STEPS = 0.5
"""Share of the drain timeout that commands in hand may use up."""


def main() -> None:
    """Entry point of `streamspace-agent`."""
    settings = load(AgentSettings)
    logging.configure(_SERVICE, settings.log_level, settings.log_format)
    tracing.configure(_SERVICE, settings.otlp_endpoint, settings.otlp_sample_ratio)
    run_service(lambda: run(settings))


async def run(settings: AgentSettings) -> None:
    """Run an agent until it is told to end."""
    membership = _membership(settings)
    instance = settings.instance or f"{slug(socket.gethostname(), 40)}-{secrets.token_hex(2)}"
    runtime = _recorded(make_runtime(settings), settings, instance)
    supervisor = Supervisor(_SERVICE, drain_timeout=settings.drain_timeout)
    proxies = _proxies(settings)
    with logging.bind(cluster_id=membership.cluster, instance=instance):
        # First of all: alive while it waits for its cluster, auth or the bus, ready after that.
        health, started = Health(), asyncio.Event()
        health.add("started", started.is_set)
        server = await serve(
            create_app(health, _SERVICE, version("streamspace-agent")),
            settings.health_host,
            settings.health_port,
        )
        log.info("health", url=f"http://{server.host}:{server.port}")
        try:
            await runtime.open()
        except EffectsFileError as error:
            raise FatalError(str(error)) from error
        bus = await _connect(settings, membership, instance, supervisor, proxies)
        health.add("bus", lambda: bus.connected)
        supervisor.on_draining(health.drain)
        await _assemble(settings, membership, instance, runtime, bus, supervisor, proxies)
        supervisor.on_drain("health", server.stop)
        started.set()
        log.info("agent ready", runtime=runtime.kind)
        await supervisor.run()


async def _connect(
    settings: AgentSettings,
    membership: Membership,
    instance: str,
    supervisor: Supervisor,
    proxies: Proxies,
) -> Bus:
    """The agent's own connection; with an enrolment, once auth has given it a credential."""
    credential = None
    if membership.enrolment is not None:
        clock = SystemClock()
        credential = WorkingCredential(
            membership.enrolment,
            asking(instance, membership.ca_file, proxies),
            clock,
            CredentialFile(settings.state_dir / "identity", membership.cluster, clock),
        )
        await credential.begin()
    connecting = asyncio.get_running_loop().create_future()
    if credential is not None:

        async def show() -> None:
            # A credential of the last time may be refused before there is a connection.
            if connecting.done():
                await connecting.result().show_newer_credential()

        # Now, since it may be renewed while the connection is tried.
        supervisor.spawn("credential", lambda: credential.run(show))
    bus = await Bus.connect(
        membership.nats_url,
        name=f"agent/{membership.cluster}/{instance}",
        credentials=credential.identity if credential else membership.credentials,
        ca_file=membership.ca_file,
        inbox=permissions.agent(membership.cluster).inbox,
        on_closed=lambda: supervisor.fail("The bus refused this agent for good."),
        on_refused=credential.refused if credential else None,
        proxies=proxies,
    )
    connecting.set_result(bus)
    return bus


async def _assemble(
    settings: AgentSettings,
    membership: Membership,
    instance: str,
    runtime: Runtime,
    bus: Bus,
    supervisor: Supervisor,
    proxies: Proxies,
) -> None:
    clock = SystemClock()
    cluster = membership.cluster
    reporter = Reporter(cluster, instance)
    events = BusEvents(bus, cluster, instance)
    handler = CommandHandler(
        reporter, runtime, events, clock, leeway=timedelta(seconds=settings.clock_leeway)
    )
    loop = command_loop(
        bus,
        cluster,
        handler,
        concurrency=settings.concurrency,
        retry=RetryPolicy(first=settings.retry_first, limit=settings.retry_limit),
    )
    pulse = Pulse(
        Identity(cluster, instance, version("streamspace-agent"), _architecture(), settings.labels),
        runtime,
        BusAnnouncer(bus, cluster, instance),
        clock,
        busy=lambda: handler.busy,
        interval=settings.heartbeat_interval,
        inventory_interval=settings.inventory_interval,
    )
    tunnels = Tunnels(
        runtime, instance, membership.tunnel_url, clock, dialling(membership.ca_file, proxies)
    )
    served = await bus.serve_cluster(cluster, {AgentMethods.OPEN_TUNNEL: tunnels.open_tunnel})

    supervisor.spawn("pulse", pulse.run)
    supervisor.spawn("deaths", lambda: report_deaths(runtime, events, reporter, clock))
    supervisor.spawn("tunnels", tunnels.run)
    supervisor.spawn("commands", loop.run)

    async def finish_commands() -> None:
        await loop.drain(settings.drain_timeout * _LEAVE_TO_LATER_STEPS)

    supervisor.on_drain("goodbye", pulse.drain)
    supervisor.on_drain("commands", finish_commands)
    supervisor.on_drain("requests", served.stop)
    supervisor.on_drain("tunnels", tunnels.close_all)
    supervisor.on_drain("sessions", _letting_go(runtime, stop=settings.on_exit == "stop"))
    supervisor.on_drain("bus", bus.drain)


def make_runtime(settings: AgentSettings) -> Runtime:
    """The runtime the settings ask for.

    Raises:
        FatalError: it cannot be set up here.
    """
    match settings.runtime:
        case RuntimeKind.PROCESS:
            return _process_runtime(settings)
        case RuntimeKind.KUBERNETES:
            return _kubernetes_runtime(settings)
        case RuntimeKind.DOCKER:
            return _docker_runtime(settings)
        case RuntimeKind.NULL:
            return _null_runtime(settings)


def _process_runtime(settings: AgentSettings) -> Runtime:
    try:
        layout = Layout.prepare(settings.state_dir, settings.runtime_dir)
    except (OSError, UnsafeDirectoryError) as error:
        raise FatalError(f"The state directory cannot be used: {error}.") from error
    return ProcessRuntime(
        layout,
        ProcessOptions(
            capacity=offered_capacity(settings),
            geometry=settings.geometry,
            kill_grace=settings.kill_grace,
            start_timeout=settings.start_timeout,
            window_patience=settings.window_patience,
            min_free_space=settings.min_free_space,
        ),
    )


def _kubernetes_runtime(settings: AgentSettings) -> Runtime:
    # Here, since the client library costs memory and time that other runtimes need not pay.
    from streamspace_agent.runtimes.kubernetes.runtime import KubernetesRuntime

    return KubernetesRuntime(kubernetes_options(settings))


def _docker_runtime(settings: AgentSettings) -> Runtime:
    # Here for the same reason.
    from streamspace_agent.runtimes.docker.manifests import ContainerOptions
    from streamspace_agent.runtimes.docker.runtime import DockerOptions, DockerRuntime

    return DockerRuntime(
        DockerOptions(
            offer=lambda info: offered_capacity(settings, cpus=info.cpus, memory_bytes=info.memory),
            host=settings.docker_host,
            containers=ContainerOptions(
                prefix=settings.docker_prefix,
                group=settings.docker_user,
                shm_size=settings.docker_shm_size,
                processes=settings.docker_processes,
                grace=settings.docker_stop_grace,
                image_mirrors=settings.image_mirrors,
            ),
            start_timeout=settings.docker_start_timeout,
        )
    )


def _null_runtime(settings: AgentSettings) -> Runtime:
    return NullRuntime(
        settings.null_ledger or settings.state_dir / "ledger.jsonl",
        NullOptions(
            capacity=offered_capacity(settings),
            start_delay=settings.null_start_delay,
            stop_delay=settings.null_stop_delay,
            delay_jitter=settings.null_delay_jitter,
            failure_rate=settings.null_failure_rate,
            fatal_rate=settings.null_fatal_rate,
            seed=settings.null_seed,
            stream=_host_and_port(settings.null_stream),
        ),
    )


def _recorded(runtime: Runtime, settings: AgentSettings, instance: str) -> Runtime:
    if settings.effects_file is None:
        return runtime
    return Recorded(runtime, EffectsFile(settings.effects_file, instance, SystemClock()))


def _host_and_port(address: str | None) -> tuple[str, int] | None:
    if address is None:
        return None
    host, _, port = address.rpartition(":")
    return host, int(port)


def _membership(settings: AgentSettings) -> Membership:
    if settings.enrolment_file is not None:
        return join(from_file(settings.enrolment_file), settings.state_dir)
    if settings.enrolment is not None:
        return join(from_setting(settings.enrolment), settings.state_dir)
    return Membership(
        settings.cluster_id,
        settings.nats_url,
        settings.nats_credentials,
        settings.tunnel_url,
        settings.nats_ca_file,
    )


def _proxies(settings: AgentSettings) -> Proxies:
    """The ways out, looked at once so that a wrong one is told at the start.

    Raises:
        FatalError: a proxy's address is none.
    """
    proxies = Proxies.of(os.environ, settings.proxy)
    for address in (proxies.secure, proxies.plain):
        try:
            if address is not None:
                checked(address)
        except ValueError as error:
            raise FatalError(
                f"The forward proxy cannot be used: {error}. See STREAMSPACE_AGENT_PROXY, "
                "HTTPS_PROXY and HTTP_PROXY."
            ) from None
    return proxies


def _architecture() -> str:
    """The processor by the name container images use."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def _letting_go(runtime: Runtime, *, stop: bool) -> Callable[[], Coroutine[Any, Any, None]]:
    async def let_go() -> None:
        await runtime.close(stop_sessions=stop)

    return let_go
