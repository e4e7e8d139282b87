"""What a release said is kept as it was, and still means the same."""

import json
import shutil
from pathlib import Path

import pytest

from streamspace_common.protogen import corpus
from streamspace_common.protogen.catalogue import payloads
from streamspace_common.testing.versions import FromTheFuture, OfRelease, restricted

PROTO = Path(__file__).parents[2] / "proto"
RELEASES = corpus.releases(PROTO)
EXAMPLES = [path for release in RELEASES for path in sorted((release / "examples").glob("*.json"))]


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    """A copy of `proto/`, to be harmed; its last release."""
    shutil.copytree(PROTO, tmp_path / "proto")
    return corpus.releases(tmp_path / "proto")[-1]


def told(release: Path) -> list[str]:
    return list(corpus.trouble(release.parent.parent))


def test_a_release_is_kept():
    assert RELEASES
    assert len(EXAMPLES) > 100


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_nothing_of_it_was_changed_and_all_of_it_is_understood(release):
    assert [line for line in corpus.trouble(PROTO) if str(release) in line] == []


def test_a_changed_a_missing_and_an_added_file_are_noticed(frozen):
    assert told(frozen) == []
    path = frozen / "examples" / "session.stop.v1.json"
    path.write_text(path.read_text() + " ")
    (frozen / "schemas" / "session.wake.v1.json").unlink()
    (frozen / "examples" / "session.levitated.v1.json").write_text("{}")
    lines = told(frozen)
    assert [line for line in lines if "session.stop.v1.json was changed" in line]
    assert [line for line in lines if "session.wake.v1.json is gone" in line]
    assert [line for line in lines if "session.levitated.v1.json was added" in line]
    (frozen / corpus.MANIFEST).unlink()
    assert [line for line in told(frozen) if "cannot be read" in line]


@pytest.mark.parametrize(
    ("said", "loss"),
    [
        ({"generation": "many"}, "no longer parses"),
        ({"colour": "green"}, "/colour is lost"),
        ({"deadline": "2026-01-02T04:04:05+01:00"}, "/deadline is lost"),
        ({"clusterId": "elsewhere"}, "belonged on cmd.lab."),
    ],
)
def test_what_is_understood_otherwise_than_it_was_said_is_noticed(frozen, said, loss):
    path = frozen / "examples" / "session.stop.v1.json"
    subject = json.loads((frozen / corpus.MANIFEST).read_text())["files"][
        "examples/session.stop.v1.json"
    ]["subject"]
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    assert [line for line in corpus.losses(path, subject) if loss in line]


def test_a_type_that_nothing_reads_any_more_is_noticed(frozen):
    path = frozen / "examples" / "session.levitated.v1.json"
    path.write_text("{}")
    assert list(corpus.losses(path, None)) == ["nothing reads it any more"]


def test_a_release_is_frozen_once_and_under_a_version(frozen):
    proto = frozen.parent.parent
    with pytest.raises(corpus.CannotFreezeError, match="is frozen"):
        corpus.freeze(proto, frozen.name)
    for name in ("next", "1.2", "../1.2.3"):
        with pytest.raises(corpus.CannotFreezeError, match="no version"):
            corpus.freeze(proto, name)
    made = corpus.freeze(proto, "99.0.0")
    assert corpus.releases(proto)[-1] == made
    assert told(made) == []


def test_an_older_speaker_does_not_say_what_its_release_did_not_know():
    speech = OfRelease(RELEASES[-1])
    path = RELEASES[-1] / "examples" / "session.start.v1.json"
    said = json.loads(path.read_text())
    newer = said | {"colour": "green", "spec": {**said["spec"], "weight": 3}}
    assert json.loads(speech.said("session.start.v1", json.dumps(newer).encode())) == said


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: f"{path.parts[-3]}/{path.stem}")
def test_an_older_speaker_says_all_that_its_release_knew(example):
    release, name = example.parent.parent, corpus.name_of(example)
    schema = json.loads((release / "schemas" / f"{name}.json").read_text())
    said = json.loads(example.read_text())
    assert restricted(said, schema, schema) == said


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: f"{path.parts[-3]}/{path.stem}")
def test_what_nobody_knows_yet_hinders_no_reader(example):
    name, text = corpus.name_of(example), example.read_bytes()
    model = payloads()[name].model
    plain = model.from_json(text)
    extended = FromTheFuture().said(name, text)
    assert b"unheardOf" in extended or not payloads()[name].model.model_fields
    assert model.from_json(extended) == plain
