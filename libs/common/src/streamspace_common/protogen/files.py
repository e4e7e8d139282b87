"""The files of `proto/`: what they should hold, what differs, and what must not change."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from streamspace_common.contracts.base import Contract
from streamspace_common.protogen import corpus
from streamspace_common.protogen.asyncapi import document
from streamspace_common.protogen.catalogue import Payload, payloads
from streamspace_common.protogen.samples import sample

SCHEMAS, EXAMPLES, ASYNCAPI = "schemas", "examples", "asyncapi.yaml"
_SCHEMA_ID = "https://streamspace.dev/proto/schemas"


def wanted(directory: Path) -> dict[Path, str]:
    """Every generated file and its text; examples only where one is missing.

    An example that exists is never written again. When a model has grown a field that
    none of its examples shows, another example is added beside the old ones.
    """
    known = payloads()
    files = {directory / ASYNCAPI: _yaml(document(known))}
    for payload in known.values():
        files[directory / SCHEMAS / f"{payload.name}.json"] = _json(schema(payload))
        example = _missing_example(directory / EXAMPLES, payload)
        if example is not None:
            files[example] = _json(sample(payload.model).model_dump(mode="json"))
    return files


def schema(payload: Payload) -> dict[str, Any]:
    """The JSON Schema of what a reader has to accept."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"{_SCHEMA_ID}/{payload.name}.json",
        **payload.model.model_json_schema(by_alias=True, mode="validation"),
        "title": payload.name,
    }


def differences(directory: Path) -> Iterator[str]:
    """What `--check` tells: files that are missing, differ, or break with the past."""
    yield from broken_promises(directory)
    yield from corpus.trouble(directory)
    for path, text in wanted(directory).items():
        if not path.exists():
            yield f"{path} is missing"
        elif path.read_text() != text:
            yield f"{path} differs from the models"


def broken_promises(directory: Path) -> Iterator[str]:
    """Changes that older versions would not understand."""
    known = payloads()
    for path in sorted((directory / SCHEMAS).glob("*.json")):
        if path.stem not in known:
            yield f"{path}: the type is gone; types are never removed (delete it if unreleased)"
            continue
        old = json.loads(path.read_text())
        new = json.loads(_json(schema(known[path.stem])))
        yield from (f"{path}: {change}" for change in _incompatible(old, new))
    for path in examples(directory):
        model = known.get(type_of(path))
        if model is None:
            yield f"{path} is an example of no type"
            continue
        try:
            model.model.from_json(path.read_text())
        except ValidationError as error:
            yield f"{path} no longer parses: {error}"


def examples(directory: Path) -> list[Path]:
    """All examples; those named `<type>@<n>.json` are further ones of a type."""
    return sorted((directory / EXAMPLES).glob("*.json"))


def type_of(example: Path) -> str:
    return example.stem.partition("@")[0]


def model_of(example: Path) -> type[Contract]:
    return payloads()[type_of(example)].model


def _missing_example(directory: Path, payload: Payload) -> Path | None:
    complete = sample(payload.model).model_dump(mode="json")
    mine = [
        path
        for path in sorted(directory.glob(f"{payload.name}*.json"))
        if type_of(path) == payload.name
    ]
    if any(_shows(json.loads(path.read_text()), complete) for path in mine):
        return None
    label = f"@{len(mine) + 1}" if mine else ""
    return directory / f"{payload.name}{label}.json"


def _shows(example: object, complete: object) -> bool:
    """Whether every field that `complete` has stands in `example` too."""
    if isinstance(complete, dict):
        return isinstance(example, dict) and all(
            name in example and _shows(example[name], value) for name, value in complete.items()
        )
    if isinstance(complete, list) and complete:
        return isinstance(example, list) and bool(example) and _shows(example[0], complete[0])
    return True


def _incompatible(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Fields that vanished or became required, anywhere in a schema."""
    yield from _object_changes("", old, new)
    for name, definition in old.get("$defs", {}).items():
        replacement = new.get("$defs", {}).get(name)
        if replacement is not None:
            yield from _object_changes(f"{name}.", definition, replacement)


def _object_changes(where: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    yield from (f"field {where}{name} is gone" for name in before if name not in after)
    required = set(new.get("required", ())) - set(old.get("required", ()))
    yield from (f"field {where}{name} became required" for name in sorted(required))
    gone = [value for value in old.get("enum", ()) if value not in new.get("enum", ())]
    yield from (f"value {where}{value} is gone" for value in gone)


def _json(data: object) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


class _Dumper(yaml.SafeDumper):
    """Without anchors: a reader of the document should not have to follow them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(data: object) -> str:
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    return f"# Generated by `python -m streamspace_common.protogen`; do not edit.\n{text}"
