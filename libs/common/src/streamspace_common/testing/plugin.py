"""The pytest plugin of StreamSpace: fixtures and guards for every test of the repository.

Loaded by its entry point, so that no test has to import from a conftest.
"""

from hypothesis import HealthCheck, settings

from streamspace_common.testing.clock import clock
from streamspace_common.testing.leaks import (
    logs_as_before,
    no_leaked_processes,
    no_leaked_tasks,
    task_guard,
)
from streamspace_common.testing.nats import bus, nats_server
from streamspace_common.testing.postgres import (
    database,
    database_url,
    migrations_package,
    postgres_server,
)

__all__ = [
    "bus",
    "clock",
    "database",
    "database_url",
    "logs_as_before",
    "migrations_package",
    "nats_server",
    "no_leaked_processes",
    "no_leaked_tasks",
    "postgres_server",
    "task_guard",
]

# How long an example takes says something about the machine's other work, not about the code.
settings.register_profile(
    "streamspace", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("streamspace")
