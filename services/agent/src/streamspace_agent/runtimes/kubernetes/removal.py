"""The end of a session's resources, fenced by the generation they were applied with."""

import asyncio
from collections.abc import Callable

from streamspace_agent.ports import PassingFailure, Superseded
from streamspace_agent.runtimes.kubernetes import kinds, manifests
from streamspace_agent.runtimes.kubernetes.api import ClusterApi
from streamspace_agent.runtimes.kubernetes.errors import ConflictError, NotFoundError
from streamspace_agent.runtimes.kubernetes.options import KubernetesOptions
from streamspace_agent.runtimes.kubernetes.reading import read_deployment
from streamspace_agent.runtimes.kubernetes.views import DeploymentView, Record
from streamspace_agent.runtimes.kubernetes.watching import Picture
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import DesiredState
from streamspace_common.runtime.logging import get_logger

log = get_logger(__name__)


class Removal:
    """Removes what sessions leave."""

    def __init__(self, api: ClusterApi, picture: Picture, options: KubernetesOptions) -> None:
        self._api = api
        self._picture = picture
        self._options = options

    async def remove(self, session: SessionId, generation: int) -> None:
        """Remove all but the record and the home; returns when nothing is left.

        Raises:
            Superseded: it was applied by a newer generation.
            PassingFailure: it is not gone in time.
        """
        deleted = await self._delete_deployment(session, generation)
        await asyncio.gather(
            self._api.delete(kinds.SERVICE, session),
            self._api.delete(kinds.NETWORK_POLICY, session),
        )
        await self._wait_gone(session, deleted)

    async def wait_no_pods(self, session: SessionId) -> None:
        """Until no pod of the session is left.

        Raises:
            PassingFailure: they are not gone in time.
        """
        await self._wait(session, lambda: self._rests(session))

    async def delete_home(self, record: Record) -> None:
        """Delete the user's home, unless another session has it."""
        home = record.home
        if home is None:
            return
        others = [
            other.session
            for other in self._picture.sessions.all()
            if other.session != record.session
            and other.home == home
            and other.wanted is not DesiredState.TERMINATED
        ]
        if others:
            log.warning("home kept, other sessions use it", home=home, by=others)
            return
        await self._api.delete(kinds.CLAIM, manifests.home_claim_name(home))

    async def _delete_deployment(self, session: SessionId, generation: int) -> str | None:
        """Begin to delete the Deployment; its uid, None where there is none.

        In the foreground: it stays until its pods are gone, so its end is the end of all.
        """
        while True:
            try:
                found = read_deployment(await self._api.get(kinds.DEPLOYMENT, session))
            except NotFoundError:
                return None
            if found is None or found.deleting:
                return found.uid if found else None
            if found.fence > generation:
                raise Superseded(found.fence)
            try:
                going = await self._api.delete(
                    kinds.DEPLOYMENT,
                    session,
                    uid=found.uid,
                    version=found.version,
                    foreground=True,
                )
            except ConflictError:
                continue
            if going is not None and going.get("kind") == kinds.DEPLOYMENT.kind:
                self._picture.deployments.put(going)
            return found.uid

    async def _wait_gone(self, session: SessionId, uid: str | None) -> None:
        def gone() -> bool:
            snapshot = self._picture.snapshot(session)
            there: DeploymentView | None = snapshot.deployment
            return not snapshot.pods and (there is None or uid is None or there.uid != uid)

        await self._wait(session, gone)

    def _rests(self, session: SessionId) -> bool:
        snapshot = self._picture.snapshot(session)
        deployment = snapshot.deployment
        idle = deployment is None or (deployment.rolled_out and deployment.existing == 0)
        return idle and not snapshot.pods

    async def _wait(self, session: SessionId, done: Callable[[], bool]) -> None:
        patience = self._options.pods.grace + self._options.stop_patience
        try:
            async with asyncio.timeout(patience):
                with self._picture.following(session) as changed:
                    while not done():
                        changed.clear()
                        await changed.wait()
        except TimeoutError:
            raise PassingFailure(
                f"The cluster has not removed the session's pod within {patience:.0f} seconds."
            ) from None
