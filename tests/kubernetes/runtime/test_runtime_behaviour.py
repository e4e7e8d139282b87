"""The kubernetes runtime is held to what every runtime must do."""

from tests.support.runtime_behaviour import *  # noqa: F403
