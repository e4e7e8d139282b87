"""How tests are dealt out to workers.

Tests of a folder that brings up one big thing (all services, a Kubernetes cluster, a
container engine) run on one worker, so that there is one of it. The mark `xdist_group`
would say so, but pytest-xdist 3.8 passes it on in a way that pytest 9.2 no longer knows,
and says nothing.

A worker may end in the middle of a test: that is how pytest-timeout ends one that hangs.
pytest-xdist 3.8 then deals out all that the worker ever had, and another one that is handed
what is done already waits for work for ever, and the run with it.
"""

from typing import Any

from xdist.scheduler import LoadScopeScheduling

TOGETHER = ("tests/chaos/", "tests/docker/", "tests/e2e/", "tests/kubernetes/")
_AT_HAND = 2
"""A worker begins a test only when it knows the next one, or that there is none."""


class FolderScheduling(LoadScopeScheduling):  # type: ignore[misc]  # its package has no types
    """Every test by itself, but for those of a folder that must stay together."""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in TOGETHER if nodeid.startswith(folder)), nodeid)

    def remove_node(self, node: Any) -> str | None:
        """Take a worker out; the test it crashed in, if so, which nobody is to run again."""
        work = self.assigned_work.pop(node)
        left = [
            (scope, test)
            for scope, tests in work.items()
            for test, done in tests.items()
            if not done
        ]
        if not left:
            return None
        (_, crashed), *others = left
        for scope, test in others:
            self.workqueue.setdefault(scope, {})[test] = False
        for worker in self.assigned_work:
            self._reschedule(worker)
        return crashed

    def _reschedule(self, node: Any) -> None:
        if node not in self.registered_collections:
            return  # It takes a crashed one's place and has yet to say what it found.
        super()._reschedule(node)
        while (
            self.workqueue
            and not node.shutting_down
            and self._pending_of(self.assigned_work[node]) < _AT_HAND
        ):
            self._assign_work_unit(node)
