"""Whatever a client sends, the answer is a clear, typed problem and nothing is lost."""

import asyncio
import secrets
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dulwich import porcelain

from streamspace_common.testing.waiting import eventually


async def refused(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]
    assert answer.json()["requestId"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"template": "no-such-template"}, 404, "not-found"),
        ({"template": "starter_desktop", "resources": {"cpu": "many"}}, 422, "invalid-request"),
        ({"template": "starter_desktop", "resources": {"memory": "-1Gi"}}, 422, "invalid-request"),
        ({"template": ["starter_desktop"]}, 422, "invalid-request"),
        ({"template": "x" * 300_000}, 413, "payload-too-large"),
        ({"template": "\u0000"}, 422, "invalid-request"),
        ({"template": "starter_desktop", "clusterId": "nowhere"}, 409, "no-cluster"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_session_request_is_a_typed_problem(user, body, status, code):
    await refused(await user.post("/sessions", json=body), status, code)
    assert (await user.get("/sessions")).json()["items"] == []


async def test_a_container_template_says_that_no_cluster_here_can_run_it(user):
    templates = (await user.get("/templates", params={"limit": 200})).json()["items"]
    image = next(item for item in templates if "process" not in item["runtimes"])
    answer = await user.post("/sessions", json={"template": image["id"]})
    await refused(answer, 409, "no-cluster")
    assert "process" in answer.json()["detail"] or "runtime" in answer.json()["detail"]


async def test_a_forged_or_expired_token_is_refused(http, user):
    header = jwt.get_unverified_header(user.token)
    claims = jwt.decode(user.token, options={"verify_signature": False})
    forged = jwt.encode(
        {**claims, "role": "admin"}, Ed25519PrivateKey.generate(), "EdDSA", headers=header
    )
    unsigned = jwt.encode(claims, None, "none")
    for token in (forged, unsigned, user.token[:-8], ".", "a.b.c", secrets.token_hex(5000)):
        answer = await http.get("/api/v1/users/me", headers={"Authorization": f"Bearer {token}"})
        await refused(answer, 401, "unauthenticated")


async def test_the_same_key_gives_the_same_session_and_another_body_is_refused(user):
    key = {"Idempotency-Key": secrets.token_hex(8)}
    body = {"template": "starter_terminal"}
    answers = await asyncio.gather(
        *(user.post("/sessions", json=body, headers=key) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} <= {202}
    assert len({answer.json()["session"]["id"] for answer in answers}) == 1
    other = await user.post("/sessions", json={"template": "starter_desktop"}, headers=key)
    await refused(other, 422, "idempotency-conflict")


def repository(path: Path, files: dict[str, str]) -> Path:
    path.mkdir()
    repo = porcelain.init(path)
    for name, text in files.items():
        (path / name).write_text(text)
        porcelain.add(repo, [path / name])
    porcelain.commit(repo, message=b"templates", author=b"a <a@b>", committer=b"a <a@b>")
    repo.close()
    return path


GOOD = """\
apiVersion: stream.space/v1alpha1
kind: Template
metadata: {name: editor}
spec:
  displayName: Editor
  baseImage: example.org/editor:1
  ports: [{name: http, containerPort: 8443}]
"""


async def test_broken_yaml_is_reported_and_the_rest_of_the_catalog_works(admin, tmp_path):
    url = repository(tmp_path / "mine", {"good.yaml": GOOD, "broken.yaml": "kind: [Template\n"})
    added = await admin.post(
        "/catalogs", json={"name": f"mine-{secrets.token_hex(3)}", "url": str(url)}
    )
    assert added.status_code == 202, added.text
    catalog_id = added.json()["id"]

    async def synced():
        return (await admin.get(f"/catalogs/{catalog_id}")).json()["state"] == "synced"

    await eventually(synced, timeout=20)
    report = (await admin.get(f"/catalogs/{catalog_id}/report")).json()
    outcomes = {file["path"]: file for file in report["files"]}
    assert outcomes["broken.yaml"]["outcome"] == "refused"
    assert outcomes["broken.yaml"]["reasons"]
    assert outcomes["good.yaml"]["outcome"] in {"accepted", "corrected"}
    assert (await admin.get(f"/templates/{catalog_id}_editor")).status_code == 200
    assert (await admin.request("DELETE", f"/catalogs/{catalog_id}")).status_code == 204

    async def withdrawn():
        return (await admin.get(f"/templates/{catalog_id}_editor")).status_code == 404

    await eventually(withdrawn, timeout=10)


async def test_a_catalog_that_hangs_fails_by_itself_and_holds_nothing_up(admin):
    async def hang(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        added = await admin.post(
            "/catalogs",
            json={"name": f"slow-{secrets.token_hex(3)}", "url": f"http://127.0.0.1:{port}/x.git"},
        )
        if added.status_code == 422:
            return
        assert added.status_code == 202, added.text
        assert (await admin.get("/templates")).status_code == 200
        removed = await admin.request("DELETE", f"/catalogs/{added.json()['id']}")
        assert removed.status_code == 204
    finally:
        server.close()
        await server.wait_closed()


async def test_too_many_wrong_passwords_are_slowed_down(http, new_user):
    someone = await new_user()
    for _ in range(30):
        answer = await http.post(
            "/api/v1/auth/login", json={"username": someone.username, "password": "wrong"}
        )
        if answer.status_code == 429:
            break
        await refused(answer, 401, "invalid-credentials")
    await refused(answer, 429, "too-many-requests")
    assert int(answer.headers["retry-after"]) >= 1
