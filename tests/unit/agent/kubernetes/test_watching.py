"""The picture stays current, whatever becomes of its watches."""

import asyncio
import contextlib
from collections import deque
from typing import Any

from streamspace_agent.runtimes.kubernetes import kinds, reading
from streamspace_agent.runtimes.kubernetes.api import Change
from streamspace_agent.runtimes.kubernetes.errors import GoneError, UnreachableError
from streamspace_agent.runtimes.kubernetes.views import Record
from streamspace_agent.runtimes.kubernetes.watching import Feed
from streamspace_common.testing.waiting import eventually


def session(name: str, version: int, generation: int = 1) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version)},
        "spec": {"state": "running", "generation": generation},
    }


class ScriptedCluster:
    """Answers lists and watches from a script; a watch without more lines stays open."""

    namespace = "sessions"

    def __init__(self) -> None:
        self.lists: deque[Any] = deque()
        self.watches: deque[list[Any]] = deque()
        self.watched_from: list[str] = []
        self.listed = 0

    async def list(self, kind: Any, selector: str | None = None) -> Any:
        self.listed += 1
        answer = self.lists.popleft() if len(self.lists) > 1 else self.lists[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def watch(
        self, kind: Any, version: str, selector: str | None = None, *, seconds: int = 0
    ):
        self.watched_from.append(version)
        if not self.watches:
            await asyncio.Event().wait()
        for line in self.watches.popleft():
            if isinstance(line, Exception):
                raise line
            yield line


@contextlib.asynccontextmanager
async def running(cluster: ScriptedCluster, changes: list[Any] | None = None):
    def changed(view: Record, there: bool) -> None:
        if changes is not None:
            changes.append((view.session, view.generation, there))

    feed: Feed[Record] = Feed(cluster, kinds.SESSION, reading.read_record, changed)  # type: ignore[arg-type]
    task = asyncio.create_task(feed.run())
    try:
        async with asyncio.timeout(5):
            await feed.current.wait()
        yield feed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_there_comes_first_and_then_what_changes() -> None:
    cluster = ScriptedCluster()
    changes: list[Any] = []
    cluster.lists.append(([session("a", 5), session("b", 6)], "7"))
    cluster.watches.append(
        [Change("MODIFIED", session("a", 8, 2)), Change("DELETED", session("b", 9))]
    )
    async with running(cluster, changes):
        await eventually(lambda: len(changes) == 4)
    assert changes == [("a", 1, True), ("b", 1, True), ("a", 2, True), ("b", 1, False)]
    assert cluster.watched_from[0] == "7"


async def test_a_watch_that_ends_goes_on_where_it_was() -> None:
    cluster = ScriptedCluster()
    cluster.lists.append(([], "7"))
    cluster.watches += [
        [Change("ADDED", session("a", 8))],
        [Change("BOOKMARK", {"metadata": {"resourceVersion": "20"}})],
        [UnreachableError(0, "Lost", "the connection broke")],
    ]
    async with running(cluster):
        await eventually(lambda: len(cluster.watched_from) == 4)
    assert cluster.watched_from == ["7", "8", "20", "20"]
    assert cluster.listed == 1


async def test_a_version_that_is_gone_begins_anew_and_sees_what_went_meanwhile() -> None:
    cluster = ScriptedCluster()
    changes: list[Any] = []
    cluster.lists += [([session("a", 5), session("b", 6)], "7"), ([session("b", 6)], "90")]
    cluster.watches.append([GoneError(410, "Expired", "too old resource version")])
    async with running(cluster, changes):
        await eventually(lambda: ("a", 1, False) in changes)
        await eventually(lambda: cluster.watched_from == ["7", "90"])
    assert changes.count(("b", 1, True)) == 1


async def test_an_api_server_that_is_away_is_told_of_and_asked_again() -> None:
    cluster = ScriptedCluster()
    cluster.lists += [([], "7")]
    cluster.watches.append([UnreachableError(0, "Unreachable", "connection refused")])
    cluster.watches.append([UnreachableError(0, "Unreachable", "connection refused")])
    async with running(cluster) as feed:
        await eventually(lambda: feed.trouble is not None)
        assert "connection refused" in str(feed.trouble)
        cluster.watches.append([Change("ADDED", session("a", 8))])
        await eventually(lambda: feed.trouble is None)


async def test_what_we_wrote_ourselves_is_not_taken_back_by_an_older_answer() -> None:
    cluster = ScriptedCluster()
    changes: list[Any] = []
    cluster.lists.append(([session("a", 5)], "7"))
    async with running(cluster, changes) as feed:
        feed.put(session("a", 9, 2))
        feed.put(session("a", 8, 1))
        held = feed.get("a")
        assert held is not None
        assert held.generation == 2
    assert changes == [("a", 1, True), ("a", 2, True)]


async def test_an_answer_that_comes_late_does_not_raise_the_dead() -> None:
    cluster = ScriptedCluster()
    cluster.lists.append(([session("a", 5)], "7"))
    cluster.watches.append([Change("DELETED", session("a", 9))])
    async with running(cluster) as feed:
        await eventually(lambda: feed.get("a") is None)
        feed.put(session("a", 8))
        assert feed.get("a") is None
        feed.put(session("a", 10))
        assert feed.get("a") is not None
