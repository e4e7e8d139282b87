"""`proto/` says what the models say, and nothing published before has been broken."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from streamspace_common.contracts.base import Contract
from streamspace_common.contracts.catalog import Manifest
from streamspace_common.protogen.catalogue import payloads
from streamspace_common.protogen.files import (
    broken_promises,
    differences,
    examples,
    model_of,
    schema,
    type_of,
    wanted,
)
from streamspace_common.protogen.samples import sample

PROTO = Path(__file__).parents[2] / "proto"
EXAMPLES = examples(PROTO)
PAYLOADS = payloads()


def test_proto_is_what_the_models_say() -> None:
    found = list(differences(PROTO))
    assert not found, "run `python -m streamspace_common.protogen`:\n" + "\n".join(found)


def test_every_payload_has_an_example() -> None:
    assert {type_of(path) for path in EXAMPLES} == set(PAYLOADS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_parses_and_comes_back_the_same(path: Path) -> None:
    text = path.read_text()
    parsed = model_of(path).from_json(text)
    _assert_holds(json.loads(parsed.to_json()), json.loads(text))
    assert model_of(path).from_json(parsed.to_json()) == parsed


def _assert_holds(data: Any, example: Any) -> None:
    """All of the example is there; at any depth, a younger version may know more fields."""
    if isinstance(example, dict):
        assert isinstance(data, dict)
        assert data.keys() >= example.keys()
        for name, value in example.items():
            _assert_holds(data[name], value)
    elif isinstance(example, list):
        assert isinstance(data, list)
        for part, of in zip(data, example, strict=True):
            _assert_holds(part, of)
    else:
        assert data == example


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_fits_its_schema(path: Path) -> None:
    published = json.loads((PROTO / "schemas" / f"{type_of(path)}.json").read_text())
    jsonschema_rs.validate(published, json.loads(path.read_text()))


@pytest.mark.parametrize("name", PAYLOADS)
def test_unknown_fields_are_ignored_at_every_depth(name: str) -> None:
    model = PAYLOADS[name].model
    complete = sample(model)
    data = json.loads(complete.to_json())
    _add_unknown(data, complete)
    assert model.from_json(json.dumps(data)) == complete


def _add_unknown(data: Any, value: object) -> None:
    """A field from the future in each object whose model does not keep what it meets."""
    if isinstance(value, Contract):
        for name, field in type(value).model_fields.items():
            _add_unknown(data[field.alias or name], getattr(value, name))
        if not isinstance(value, Manifest):
            data["fromTheFuture"] = {"some": ["thing"]}
    elif isinstance(value, tuple | list):
        for part, of in zip(data, value, strict=True):
            _add_unknown(part, of)


def test_the_asyncapi_document_refers_to_what_exists() -> None:
    document = yaml.safe_load((PROTO / "asyncapi.yaml").read_text())
    assert document["asyncapi"] == "3.0.0"
    references = list(_references(document))
    assert len(references) > 300
    for reference in references:
        if reference.startswith("#/"):
            here = document
            for part in reference[2:].split("/"):
                here = here[part]
        else:
            assert (PROTO / reference).is_file(), reference
    for message in document["components"]["messages"].values():
        assert (PROTO / message["x-example"]).is_file()


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def test_every_stored_or_asked_subject_has_somebody_who_may_send() -> None:
    document = yaml.safe_load((PROTO / "asyncapi.yaml").read_text())
    for name, operation in document["operations"].items():
        assert operation["x-sent-by"], f"{name}: no role may publish there"


# The guard itself.


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A `proto/` as generated, to be damaged."""
    for path, text in wanted(tmp_path).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert list(differences(tmp_path)) == []
    return tmp_path


def _damage(path: Path, change: Any) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_vanished_field_is_noticed(published: Path) -> None:
    path = published / "schemas" / "session.stop.v1.json"
    _damage(path, lambda data: data["properties"].update(force={"type": "boolean"}))
    assert [line for line in broken_promises(published) if "field force is gone" in line]


def test_a_field_that_became_required_is_noticed(published: Path) -> None:
    path = published / "schemas" / "session.stop.v1.json"
    _damage(path, lambda data: data["required"].remove("deadline"))
    assert [line for line in broken_promises(published) if "deadline became required" in line]


def test_a_vanished_enum_value_is_noticed(published: Path) -> None:
    path = published / "schemas" / "session.failed.v1.json"
    _damage(path, lambda data: data["$defs"]["Reason"]["enum"].append("bored"))
    assert [line for line in broken_promises(published) if "bored is gone" in line]


def test_a_vanished_type_is_noticed(published: Path) -> None:
    (published / "schemas" / "session.pause.v1.json").write_text("{}")
    assert [line for line in broken_promises(published) if "types are never removed" in line]


def test_an_example_that_no_longer_parses_is_noticed_and_never_rewritten(published: Path) -> None:
    path = published / "examples" / "session.stop.v1.json"
    _damage(path, lambda data: data.update(generation="many"))
    assert [line for line in broken_promises(published) if "no longer parses" in line]
    assert path not in wanted(published)


def test_a_new_field_gets_a_further_example_beside_the_old_one(published: Path) -> None:
    path = published / "examples" / "session.stop.v1.json"
    _damage(path, lambda data: data.pop("deleteHome"))
    further = published / "examples" / "session.stop.v1@2.json"
    files = wanted(published)
    assert further in files
    assert path not in files
    assert "deleteHome" in json.loads(files[further])


def test_schemas_are_valid_and_named(published: Path) -> None:
    for payload in PAYLOADS.values():
        made = schema(payload)
        jsonschema_rs.validator_for(made)
        assert made["$id"].endswith(f"/{payload.name}.json")
