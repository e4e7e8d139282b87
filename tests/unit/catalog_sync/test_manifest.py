"""Manifests: what is kept, what is coerced, and where limits lie."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from streamspace_catalog_sync.domain import (
    CanonicalTemplate,
    Reading,
    SourceFile,
    canonical_json,
    digest_of,
)
from streamspace_catalog_sync.manifest import (
    MAX_FILE_BYTES,
    MAX_MANIFEST_BYTES,
    read_file,
    shipped_corrections,
)
from streamspace_common.contracts.catalog import FileOutcome, Protocol, TemplateManifest


def document(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "stream.space/v1alpha1",
        "kind": "Template",
        "metadata": {"name": "sample"},
        "spec": {
            "displayName": "Sample",
            "baseImage": "registry.example/team/app:1",
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            **spec,
        },
    }


def read(content: bytes | str | dict[str, Any], path: str = "sample.yaml") -> Reading:
    if isinstance(content, dict):
        content = yaml.safe_dump(content, allow_unicode=True)
    raw = content.encode() if isinstance(content, str) else content
    (reading,) = read_file(SourceFile(path, raw), shipped_corrections())
    return reading


def template(**spec: Any) -> CanonicalTemplate:
    reading = read(document(**spec))
    assert reading.template is not None, reading.reasons
    return reading.template


def test_unknown_fields_survive_at_every_level() -> None:
    content = document(
        nested={"deep": [1, {"x": True}]},
        env=[{"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        ports=[{"name": "http", "containerPort": 8080, "hostPort": 80}],
        defaultResources={"cpu": "1", "memory": "1Gi", "gpu": "1"},
    )
    content["metadata"]["labels"] = {"team": "design"}
    content["x-owner"] = "ann"
    found = read(content).template
    assert found is not None
    spec = found.document["spec"]
    assert spec["nested"] == {"deep": [1, {"x": True}]}
    assert spec["env"][0]["valueFrom"] == {"secretKeyRef": {"name": "s", "key": "k"}}
    assert spec["ports"][0]["hostPort"] == 80
    assert spec["defaultResources"]["gpu"] == "1"
    assert found.document["metadata"]["labels"] == {"team": "design"}
    assert found.document["x-owner"] == "ann"


def test_a_canonical_manifest_read_again_is_the_same() -> None:
    first = template(kasmvnc={"enabled": True, "port": 3000}, category="Web Browser,VPN")
    again = read(first.document).template
    assert again is not None
    assert again.digest == first.digest
    assert TemplateManifest.model_validate(first.document) == first.manifest


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": {"c": 2, "d": 3}}) == digest_of({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})


def test_plain_scalars_follow_yaml_1_2_so_text_stays_text() -> None:
    found = read(
        yaml.safe_dump(document()) + "  when: 2024-01-01\n  on: yes\n  clock: 12:30\n"
    ).template
    assert found is not None
    spec = found.document["spec"]
    assert (spec["when"], spec["on"], spec["clock"]) == ("2024-01-01", "yes", "12:30")


@pytest.mark.parametrize(
    ("written", "kept"),
    [("1000", "1000"), ("0022", "0022"), ("true", "true"), ("1.50", "1.50"), ("0x1F", "0x1F")],
)
def test_environment_values_keep_the_text_they_were_written_as(written: str, kept: str) -> None:
    reading = read(yaml.safe_dump(document()) + f"  env: [{{name: A, value: {written}}}]\n")
    assert reading.outcome is FileOutcome.CORRECTED
    assert reading.template is not None
    assert reading.template.manifest.spec.env[0].value == kept


@pytest.mark.parametrize(
    ("image", "port"),
    [
        ("lscr.io/linuxserver/firefox:latest", 3000),
        ("linuxserver/calibre", 8080),
        ("ghcr.io/linuxserver/code-server:4.1", 8443),
        ("quay.io/jupyter/minimal-notebook:latest", 8888),
        ("localhost:5000/linuxserver/jellyfin@sha256:" + "a" * 64, 8096),
    ],
)
def test_what_an_image_listens_on_wins_over_what_is_declared(image: str, port: int) -> None:
    spec = template(baseImage=image, ports=[{"name": "http", "containerPort": 1234}]).manifest.spec
    assert spec.connection is not None
    assert (spec.connection.protocol, spec.connection.port) == (Protocol.HTTP, port)
    assert [entry.container_port for entry in spec.ports] == [port]


def test_an_image_nobody_knows_keeps_its_declared_port() -> None:
    connection = template().manifest.spec.connection
    assert connection is not None
    assert connection.port == 8080


def test_a_template_with_a_process_is_usable_whatever_its_image() -> None:
    found = template(
        baseImage="lscr.io/linuxserver/openssh-server:latest", process={"command": ["xterm"]}
    )
    assert found.unusable is None


def test_a_file_larger_than_the_limit_is_refused_unread() -> None:
    reading = read(b"a: " + b"x" * MAX_FILE_BYTES)
    assert reading.outcome is FileOutcome.REFUSED
    assert reading.reasons == ("larger than 64 KiB",)


def test_a_manifest_that_no_command_could_carry_is_refused() -> None:
    text = "x" * (MAX_MANIFEST_BYTES - 100)
    assert read(document(filler=text)).reasons == ("the manifest is larger than 48 KiB",)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("env", "x", "spec.env is not a list"),
        ("env", [1], "spec.env[0] is not a mapping"),
        ("ports", {"a": 1}, "spec.ports is not a list"),
        ("tags", "x", "spec.tags is not a list"),
        ("tags", [{"a": 1}], "spec.tags[0] is not a text"),
        ("capabilities", [["x"]], "spec.capabilities[0] is not a text"),
        ("defaultResources", [], "spec.defaultResources is not a mapping"),
        ("kasmvnc", "yes", "spec.kasmvnc is not a mapping"),
        ("vnc", {"enabled": "maybe"}, "spec.vnc.enabled is not true or false"),
        ("webapp", {"port": 0}, "spec.webapp.port: 0 is not a port from 1 to 65535"),
        ("connection", {"port": 80}, "spec.connection.protocol is missing (vnc or http)"),
        ("connection", {"protocol": "http"}, "spec.connection.port is missing"),
        ("process", {"command": "xterm -e sh"}, "spec.process.command is not a list"),
        (
            "process",
            {"command": ["a"], "panel": [1]},
            "spec.process.panel: Input should be a valid boolean",
        ),
        ("other", "bell\a", "spec.other: holds control characters"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(path: str, value: Any, reason: str) -> None:
    reading = read(document(**{path: value}))
    assert (reading.outcome, reading.reasons) == (FileOutcome.REFUSED, (reason,))


@pytest.mark.parametrize("path", [".github/x.yaml", "a/.hidden/x.yaml", ".x.yaml"])
def test_hidden_files_are_skipped(path: str) -> None:
    assert read(document(), path=path).outcome is FileOutcome.SKIPPED


def test_a_file_its_source_could_not_read_is_skipped_with_the_reason() -> None:
    (reading,) = read_file(SourceFile("a.yaml", problem="a symbolic link"), shipped_corrections())
    assert (reading.outcome, reading.reasons) == (FileOutcome.SKIPPED, ("a symbolic link",))


def test_too_many_documents_are_refused() -> None:
    assert read("---\na: 1\n" * 50).reasons == ("more than 20 documents in one file",)


@given(st.binary(max_size=300))
def test_no_bytes_whatever_raise(content: bytes) -> None:
    readings = read_file(SourceFile("x.yaml", content), shipped_corrections())
    assert readings


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
_FIELDS = st.sampled_from(
    [
        "displayName",
        "description",
        "category",
        "categories",
        "icon",
        "baseImage",
        "defaultResources",
        "ports",
        "env",
        "volumeMounts",
        "connection",
        "vnc",
        "kasmvnc",
        "webapp",
        "process",
        "capabilities",
        "tags",
        "shmSize",
        "other",
    ]
)


@given(st.dictionaries(_FIELDS, _JSON, max_size=4))
def test_no_values_whatever_raise_and_what_is_accepted_can_be_stored(spec: dict[str, Any]) -> None:
    content = canonical_json(document(**spec))
    for reading in read_file(SourceFile("x.yaml", content), shipped_corrections()):
        assert reading.reasons or reading.outcome is FileOutcome.ACCEPTED
        if reading.template is not None:
            assert b"\\u0000" not in canonical_json(reading.template.document)
            again = TemplateManifest.model_validate(reading.template.document)
            assert again == reading.template.manifest
