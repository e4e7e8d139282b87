"""The cluster's durable consumer, and what an outcome means to it."""

from streamspace_agent import metrics
from streamspace_agent.handlers import CommandHandler, Done, Refuse, TryAgain
from streamspace_common.bus import Bus
from streamspace_common.bus.consume import Delivery, PullLoop, Reject, Retry, RetryPolicy
from streamspace_common.contracts.ids import ClusterId
from streamspace_common.contracts.streams import agent_durable


def command_loop(
    bus: Bus,
    cluster: ClusterId,
    handler: CommandHandler,
    *,
    concurrency: int,
    retry: RetryPolicy,
) -> PullLoop:
    """Feeds the handler with the cluster's commands, serially per session."""

    async def handle(delivery: Delivery) -> None:
        if delivery.deliveries > 1:
            metrics.REDELIVERIES.inc()
        match await handler.handle(delivery.payload, last_try=delivery.last_try):
            case Done():
                return
            case TryAgain(reason):
                raise Retry(reason=reason)
            case Refuse(reason):
                raise Reject(reason)

    async def give_up(delivery: Delivery, error: BaseException) -> None:
        if not isinstance(error, Retry):
            # Not an outcome of the handler, so nobody has been told yet.
            await handler.give_up(delivery.payload)

    return PullLoop(
        bus,
        agent_durable(cluster),
        handle,
        # One subject per session.
        key=lambda delivery: delivery.subject,
        concurrency=concurrency,
        retry=retry,
        on_given_up=give_up,
        on_newer=lambda delivery: handler.newer(delivery.payload),
    )
