"""Tells of desktops that ended by themselves."""

from streamspace_agent import metrics
from streamspace_agent.ports import Events, Runtime
from streamspace_agent.reports import Reporter
from streamspace_common.runtime.clock import Clock
from streamspace_common.runtime.logging import bind, get_logger

log = get_logger(__name__)


async def report_deaths(runtime: Runtime, events: Events, reporter: Reporter, clock: Clock) -> None:
    """Publish a failure for each death the runtime sees; for ever."""
    async for observed in runtime.watch():
        if observed.death is None:
            continue
        with bind(session_id=observed.session_id):
            metrics.DEATHS.inc()
            await events.publish(reporter.died(observed, observed.death, clock.now()))
            log.info("death told", generation=observed.generation)
