"""The Role of deploy/k8s is what an agent needs, and no more, by the API server's audit log.

That no agent was ever forbidden anything is asserted for every test, when its site closes.
"""

import json

import pytest
import websockets
import yaml
from tests.kubernetes import pods
from tests.kubernetes.sites import ACCOUNT, shipped_role
from tests.kubernetes.viewing import PATIENCE, act, begin, connect, dial, start, stop, viewing
from tests.support.rfb import BANNER

from streamspace_common.testing.waiting import eventually

pytestmark = pytest.mark.timeout(900)

_FORGOTTEN = "ada-desktop-00000001"
_ASKED_BY_THE_API_SERVER = ("", "pods/portforward", "create")
"""Looked up beside the `get` of the WebSocket, and not written down: see the second test."""


async def test_each_rule_of_the_role_is_used(user, admin, new_site, cluster):
    site = await new_site()
    assert cluster.audit_log  # Skips where there is none.
    pods.apply(cluster, site.id, _record_of_long_ago(site.id))
    site.kubectl(
        "patch", "sessions.stream.space", _FORGOTTEN, "--subresource=status", "--type=merge",
        f"--patch={json.dumps({'status': _ENDED_LONG_AGO})}",
    )  # fmt: skip
    agent = site.start_agent()
    await site.until_online(admin)
    session = await start(user, site)
    async with viewing(user, session):
        pass
    await act(user, session, "hibernate", "hibernated")
    await act(user, session, "wake", "running")
    broken = await begin(user, site, "broken")
    await user.wait_for(broken, "failed", seconds=PATIENCE)
    answer = await user.request("DELETE", f"/sessions/{session}", params={"deleteHome": "true"})
    assert answer.status_code == 202
    await user.wait_for(session, "terminated", seconds=PATIENCE)
    left = [each["metadata"]["name"] for each in site.get("sessions.stream.space")]
    assert sorted(left) == sorted([session, broken])

    agent.end()
    granted = set(_granted(shipped_role()))
    await eventually(
        lambda: granted <= _used(site) | {_ASKED_BY_THE_API_SERVER},
        timeout=PATIENCE,
        message=f"not used: {sorted(granted - _used(site))}",
    )


async def test_a_port_forward_needs_both_of_its_verbs(user, site, cluster):
    if _minor_version(cluster) < 35:
        pytest.skip("before Kubernetes 1.35 a WebSocket needs no `create`")
    session = await start(user, site)
    assert await _greeting(user, session) == BANNER
    site.may_be_forbidden = True
    for missing in ("create", "get"):
        _grant_port_forward(site, {"create", "get"} - {missing})
        await _eventually_greets(user, session, None)
        _grant_port_forward(site, {"create", "get"})
        await _eventually_greets(user, session, BANNER)
    await stop(user, session)


def _granted(role):
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield group, resource, verb


def _used(site):
    used = set()
    for line in site.requests():
        about, status = line.get("objectRef"), line["responseStatus"]["code"]
        if about is None:
            continue
        resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
        used.add((about.get("apiGroup", ""), resource, line["verb"]))
        if line["verb"] == "patch" and status == 201:
            # A server-side apply of what was not there.
            used.add((about.get("apiGroup", ""), resource, "create"))
    return used


def _grant_port_forward(site, verbs):
    role = shipped_role() | {"metadata": {"name": ACCOUNT}}
    for rule in role["rules"]:
        if rule["resources"] == ["pods/portforward"]:
            rule["verbs"] = sorted(verbs)
    pods.apply(site.cluster, site.id, role)


async def _eventually_greets(user, session, greeting):
    async def greets():
        return await _greeting(user, session) == greeting

    await eventually(greets, timeout=PATIENCE, message=f"greeting is not {greeting}")


async def _greeting(user, session):
    """What a viewer reads first, None when the relay cannot reach the session."""
    async with dial(await connect(user, session)) as stream:
        try:
            return await stream.recv()
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd is not None and closed.rcvd.code == 4502
            return None


def _minor_version(cluster):
    version = yaml.safe_load(cluster.kubectl("get", "--raw=/version"))
    return int(version["minor"].rstrip("+"))


_ENDED_LONG_AGO = {
    "phase": "Terminated",
    "generation": 2,
    "terminatedAt": "2020-01-01T00:00:00Z",
}


def _record_of_long_ago(namespace):
    return {
        "apiVersion": "stream.space/v1alpha1",
        "kind": "Session",
        "metadata": {
            "name": _FORGOTTEN,
            "namespace": namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "streamspace-agent",
                "app.kubernetes.io/name": "streamspace-session",
                "stream.space/session": _FORGOTTEN,
            },
        },
        "spec": {"generation": 2, "state": "terminated"},
    }
