"""The `Session` resources: the generation is written on them first, and the outcome last.

Both writes carry the version that was read, so of two agents that write at once one is
told to read again. That is the whole lock between replicas: what an agent did for a
generation counts only if nobody had written a newer one when it settles the record.
"""

from dataclasses import replace
from typing import Any

from streamspace_agent.ports import Superseded
from streamspace_agent.runtimes.kubernetes import judgement, kinds, manifests
from streamspace_agent.runtimes.kubernetes.api import ClusterApi
from streamspace_agent.runtimes.kubernetes.errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
)
from streamspace_agent.runtimes.kubernetes.kinds import Manifest
from streamspace_agent.runtimes.kubernetes.options import PodOptions
from streamspace_agent.runtimes.kubernetes.reading import read_record
from streamspace_agent.runtimes.kubernetes.views import Record, Status
from streamspace_agent.runtimes.kubernetes.watching import Picture
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import DesiredState, SessionSpec


class Records:
    """Reads and writes the records of one namespace, and keeps the picture current."""

    def __init__(self, api: ClusterApi, picture: Picture, options: PodOptions) -> None:
        self._api = api
        self._picture = picture
        self._options = options

    async def read(self, session: SessionId) -> Record | None:
        """The record as it is now, whatever the picture says."""
        try:
            found = await self._api.get(kinds.SESSION, session)
        except NotFoundError:
            return None
        return self._keep(found)

    async def raise_to(
        self,
        session: SessionId,
        generation: int,
        wanted: DesiredState,
        spec: SessionSpec | None = None,
        *,
        delete_home: bool = False,
    ) -> Record:
        """Write the generation, unless it is written already.

        Raises:
            Superseded: a newer generation is written.
        """
        resource = manifests.session_resource(
            session, generation, wanted, spec, self._options, delete_home=delete_home
        )
        before = self._picture.record(session)
        while True:
            match judgement.fence(before, generation, wanted):
                case judgement.Late(newer):
                    raise Superseded(newer)
                case judgement.Written() if before is not None:
                    return before
                case _:
                    pass
            try:
                return await self._write(resource, before)
            except (ConflictError, AlreadyExistsError, NotFoundError):
                before = await self.read(session)

    async def settle(self, record: Record, status: Status) -> Record:
        """Write what became of a record's generation.

        Raises:
            Superseded: a newer generation was written meanwhile.
        """
        while True:
            try:
                written = await self._api.patch_status(
                    kinds.SESSION, record.session, record.version, status.body()
                )
            except ConflictError:
                record = await self._reread(record)
                continue
            except NotFoundError:
                raise Superseded(record.generation) from None
            return self._keep(written) or replace(record, status=status)

    async def withdraw(self, record: Record, wanted: DesiredState, status: Status) -> Record:
        """Take a generation's wish back: what it began is undone.

        Raises:
            Superseded: a newer generation was written meanwhile.
        """
        while record.wanted is not wanted:
            current = await self._api.get(kinds.SESSION, record.session)
            read = self._keep(current)
            if read is None or read.generation > record.generation:
                raise Superseded(read.generation if read else record.generation)
            record = read
            current["spec"]["state"] = wanted.value
            try:
                record = self._keep(await self._api.replace(kinds.SESSION, current)) or record
            except ConflictError:
                continue
        return await self.settle(record, status)

    async def forget(self, record: Record) -> None:
        """Delete a record that nobody can ask about any more."""
        await self._api.delete(kinds.SESSION, record.session, uid=record.uid)

    async def _write(self, resource: Manifest, before: Record | None) -> Record:
        if before is None:
            written = await self._api.create(kinds.SESSION, resource)
        else:
            changed = await self._merged(resource, before)
            written = await self._api.replace(kinds.SESSION, changed)
        record = self._keep(written)
        if record is None:
            raise NotFoundError(404, "Unreadable", "the cluster answered with no such resource")
        return record

    async def _merged(self, resource: Manifest, before: Record) -> Manifest:
        """What is written over a record: a stop knows no spec and keeps the one there is."""
        metadata: dict[str, Any] = dict(resource["metadata"])
        metadata |= {"resourceVersion": before.version, "uid": before.uid}
        body = resource["spec"]
        if "session" not in body:
            current = await self._api.get(kinds.SESSION, before.session)
            body = (current.get("spec") or {}) | body
            metadata = current["metadata"] | {"resourceVersion": before.version}
        return resource | {"metadata": metadata, "spec": body}

    async def _reread(self, record: Record) -> Record:
        current = await self.read(record.session)
        if current is None or current.generation > record.generation:
            raise Superseded(current.generation if current else record.generation)
        return current

    def _keep(self, manifest: Manifest) -> Record | None:
        self._picture.sessions.put(manifest)
        return read_record(manifest)
