"""A start is waited for as long as there is a sign of life, and no longer."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.phases import Heard

from streamspace_agent.ports import PermanentFailure
from streamspace_agent.runtimes.kubernetes import reading, views
from streamspace_agent.runtimes.kubernetes.bringup import BringUp
from streamspace_agent.runtimes.kubernetes.options import Access, KubernetesOptions, PodOptions
from streamspace_agent.runtimes.kubernetes.views import DeploymentView, PodView, Record, Snapshot
from streamspace_common.contracts.clusters import Capacity
from streamspace_common.contracts.ids import SessionId
from streamspace_common.contracts.sessions import DesiredState, Phase

S = SessionId("ada-desktop-00000001")
POD = f"{S}-x2x9z"
RECORD = Record(S, "u0", "1", 1, DesiredState.RUNNING, views.Status())
DEPLOYMENT = DeploymentView(
    session=S, uid="d1", version="1", fence=1, generation=1, replicas=1, deleting=False,
    rolled_out=True, existing=1, refusal=None, foreign=False,
)  # fmt: skip
OPTIONS = KubernetesOptions(
    Access(),
    PodOptions(),
    Capacity(max_sessions=1, cpu=1, memory=1),
    start_patience=1.0,
    fetch_word=0.25,
    fetch_patience=1.5,
)


def creating() -> PodView:
    manifest = {
        "metadata": {
            "name": POD,
            "uid": "u1",
            "resourceVersion": "5",
            "labels": {"stream.space/session": S},
        },
        "status": {
            "conditions": [{"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}],
        },
    }
    view = reading.read_pod(manifest)
    assert view is not None
    return view


def pulling() -> views.EventView:
    return views.EventView("e1", "6", "Pod", POD, "Pulling", "", False, "2026-01-01T00:00:00Z")


class StillPicture:
    """Nothing changes in it."""

    def __init__(self, *events: views.EventView) -> None:
        self.seen = Snapshot(S, RECORD, DEPLOYMENT, (creating(),), events)

    def snapshot(self, session: SessionId) -> Snapshot:
        return self.seen

    @contextlib.contextmanager
    def following(self, session: SessionId) -> Iterator[asyncio.Event]:
        yield asyncio.Event()


async def heard_of(picture: StillPicture) -> Heard:
    """What is told of a start until patience ends."""
    nobody: Any = None
    bringup = BringUp(nobody, picture, OPTIONS, nobody)  # type: ignore[arg-type]
    heard = Heard()
    with pytest.raises(PermanentFailure, match="did not answer"):
        await bringup.wait_up(RECORD, nobody, DEPLOYMENT, heard)
    assert heard.reached == [Phase.SCHEDULED]
    return heard


async def test_a_node_that_fetches_an_image_gets_its_own_time_and_is_spoken_of_meanwhile() -> None:
    heard = await heard_of(StillPicture(pulling()))
    assert heard.words[0] == (Phase.PULLING, "The node fetches the image.")
    assert heard.words[-1] == (Phase.PULLING, "The node fetches the image, for 1.5 s so far.")


async def test_a_pod_that_does_nothing_does_not() -> None:
    assert (await heard_of(StillPicture())).words == []
