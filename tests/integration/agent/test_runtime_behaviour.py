"""The behaviour of every runtime, of the null and the process runtime."""

from tests.support.runtime_behaviour import *  # noqa: F403 - the tests, taken over as they are
