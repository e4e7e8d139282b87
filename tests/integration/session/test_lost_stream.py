"""A stream of events that was lost: what is told after it is news, although its place is lower."""

import asyncio

from streamspace_common.contracts.events import ClusterRevoked
from streamspace_common.contracts.ids import ClusterId, new_message_id
from streamspace_common.contracts.streams import EVENTS
from streamspace_common.testing.waiting import eventually


async def lose_stream(lab):
    await lab.stop_service()
    await lab.bus.link.api(f"STREAM.DELETE.{EVENTS.name}")
    await lab.start()


async def is_disabled(lab, user):
    async with lab.replicas[0].service.store.transaction() as tx:
        return await tx.accounts.disabled(user.user_id)


async def test_news_after_the_stream_was_lost_have_their_effect(lab):
    ada = lab.user("ada")
    await lab.account(ada, disabled=False)
    await lab.running()
    before = await lab.bus.last_sequence(EVENTS.name)
    await lose_stream(lab)
    assert await lab.bus.last_sequence(EVENTS.name) < before
    await lab.template("desktop", description="Another desktop")
    await lab.account(ada, disabled=True)
    await eventually(lambda: is_disabled(lab, ada))
    cluster = ClusterId("lab")
    await lab.publish(
        ClusterRevoked(
            id=str(new_message_id()),
            at=(await lab.cluster(cluster)).created_at,
            actor=lab.admin_actor,
            cluster_id=cluster,
        )
    )

    async def is_revoked():
        return (await lab.cluster(cluster)).revoked_at is not None

    await eventually(is_revoked)


async def test_a_stream_that_is_whole_is_left_alone(lab):
    await lab.account(lab.user("ada"), disabled=True)
    await eventually(lambda: is_disabled(lab, lab.user("ada")))
    async with lab.replicas[0].service.store.transaction() as tx:
        before = await tx.places.furthest()
    assert before > 0
    await asyncio.gather(*(lab.start() for _ in range(2)))
    async with lab.replicas[0].service.store.transaction() as tx:
        assert await tx.places.furthest() == before
