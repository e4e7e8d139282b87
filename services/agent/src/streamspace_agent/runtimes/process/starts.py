"""One start of one session, from its spec to a record that says `running`, or undone."""

import asyncio
import getpass
import os
import secrets
import shutil
import socket
from dataclasses import dataclass

from streamspace_agent.ports import PermanentFailure, ReportPhase
from streamspace_agent.runtimes.process import appearance, desktop, environment
from streamspace_agent.runtimes.process.endings import Undertaker
from streamspace_agent.runtimes.process.launch import Launch, Started
from streamspace_agent.runtimes.process.paths import Layout, remove_tree
from streamspace_agent.runtimes.process.processes import boot_id
from streamspace_agent.runtimes.process.records import ProcessRecord, Records, SessionRecord
from streamspace_common.contracts.clusters import Capacity, ResourceState
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import Phase, Reason, SessionSpec


@dataclass(frozen=True)
class ProcessOptions:
    """How desktops are run; times in seconds, space in bytes."""

    capacity: Capacity
    geometry: str = "1280x800"
    kill_grace: float = 2.0
    start_timeout: float = 30.0
    window_patience: float = 2.0
    min_free_space: int = 64 * 1024 * 1024


class Starts:
    """Prepares, carries out and undoes starts; all but `prepare` under the session's lock."""

    def __init__(
        self, layout: Layout, options: ProcessOptions, records: Records, undertaker: Undertaker
    ) -> None:
        self._layout = layout
        self._options = options
        self._records = records
        self._undertaker = undertaker
        self._user = getpass.getuser()

    def prepare(self, spec: SessionSpec) -> Launch:
        """Decide everything that can be decided before anything is done.

        Raises:
            PermanentFailure: the session cannot be started on this machine.
        """
        lack = self.lack_of_space()
        if lack:
            raise PermanentFailure(Reason.NO_SPACE, lack)
        places = self._layout.session(spec.session_id)
        try:
            home = self._layout.home(spec)
        except ValueError as error:
            raise PermanentFailure(Reason.START_FAILED, str(error)) from error
        serves_http = spec.template_manifest.spec.process_serves_http
        http_port = _free_loopback_port() if serves_http else None
        return Launch(
            plan=desktop.plan(spec, places, geometry=self._options.geometry, http_port=http_port),
            places=places,
            home=home,
            environment=environment.build(
                spec,
                places=places,
                home=home,
                installation=self._layout.installation,
                user=self._user,
                data_dir=appearance.DATA_DIR,
                inherited=os.environ,
                http_port=http_port,
            ),
            timeout=self._options.start_timeout,
            window_patience=self._options.window_patience,
        )

    async def carry_out(
        self,
        launch: Launch,
        spec: SessionSpec,
        generation: int,
        before: SessionRecord | None,
        report_phase: ReportPhase,
    ) -> SessionRecord:
        """Start the desktop; returns the record to be saved once the start stands.

        Raises: as `Launch.run`.
        """
        session = spec.session_id
        if before is not None and before.state is not ResourceState.HIBERNATED:
            await self._undertaker.bury(session, before)
        starting = SessionRecord(
            session_id=session,
            generation=generation,
            state=ResourceState.STARTING,
            spec=spec,
            incarnation=secrets.token_hex(8),
            boot_id=boot_id(),
            woken=before is not None and before.state is ResourceState.HIBERNATED,
        )
        # Written before anything runs: an agent that is killed now is cleaned up after.
        self._records.save(starting)
        launch.home.mkdir(mode=0o700, exist_ok=True)
        await asyncio.to_thread(launch.places.make)
        look = appearance.Look(launch.plan.title, panel=launch.plan.panel is not None)
        appearance.write_configuration(launch.places.configuration, look)
        report_phase(Phase.CREATED)
        await launch.run(report_phase)
        return starting.model_copy(
            update={
                "state": ResourceState.RUNNING,
                "display": launch.display if launch.plan.x_server else None,
                "http_port": launch.plan.http_port,
                "processes": tuple(_remembered(each) for each in launch.started),
            }
        )

    async def undo(self, session: SessionId, before: SessionRecord | None) -> None:
        """As if the start had never begun: a session at rest is at rest again."""
        await self._undertaker.bury(session, self._records.load(session))
        if before is not None and (before.state is ResourceState.HIBERNATED or before.suspended):
            self._records.save(before)
            return
        await asyncio.to_thread(remove_tree, self._layout.temporary_home(session))
        self._records.remove(session)

    async def undo_cut_short(self, starting: SessionRecord) -> None:
        """Undo a start whose agent was killed amid it."""
        before = None
        if starting.woken:
            before = starting.model_copy(
                update={"state": ResourceState.HIBERNATED, "processes": (), "woken": False}
            )
        await self.undo(starting.session_id, before)

    def lack_of_space(self) -> str | None:
        """Why there is no room for another session, in words; None when there is."""
        free = shutil.disk_usage(self._layout.state).free
        if free >= self._options.min_free_space:
            return None
        return (
            f"Only {free // 2**20} MiB are free on the agent's disk "
            f"({self._layout.state}); make room there."
        )


def _free_loopback_port() -> int:
    """A port nobody has right now.

    Until the application takes it another program could; then the application cannot,
    and the start fails and says so.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _remembered(started: Started) -> ProcessRecord:
    identity = started.process.identity
    return ProcessRecord(
        role=started.role, pid=identity.pid, started=identity.started, vital=started.vital
    )
