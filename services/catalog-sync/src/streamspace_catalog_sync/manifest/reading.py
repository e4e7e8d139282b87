"""From a file's bytes to templates, and to the reasons why not.

The order matters: first the fields are made sound one by one, then the connection
is worked out (it reads ports and environment), then the contract model has its
say, then the canonical document is made and measured.
"""

from typing import Any

from pydantic import ValidationError

from streamspace_catalog_sync.domain import (
    CanonicalTemplate,
    Reading,
    SourceFile,
    canonical_json,
    digest_of,
)
from streamspace_catalog_sync.manifest import fields, prose, yaml_text
from streamspace_catalog_sync.manifest.connection import connect
from streamspace_catalog_sync.manifest.corrections import Corrections, KnownImage
from streamspace_catalog_sync.manifest.findings import Findings, RefusedError, SkippedError
from streamspace_catalog_sync.manifest.yaml_text import Tree, YamlError
from streamspace_common.contracts.catalog import FileOutcome, TemplateManifest
from streamspace_common.contracts.ids import slug

API_VERSION = "stream.space/v1alpha1"
API_VERSIONS = (API_VERSION, "stream.streamspace.io/v1alpha1")
"""Ours, and the one that older manifests carry."""

MAX_FILE_BYTES = 64 * 1024
MAX_MANIFEST_BYTES = 48 * 1024
"""A start command carries the manifest, and a command is at most 64 KiB."""

RULES_VERSION = 2
"""Grows when the rules here change, so that unchanged commits are read again."""


def read_file(file: SourceFile, corrections: Corrections) -> tuple[Reading, ...]:
    """What each document of the file is worth; at least one reading, never an error."""
    try:
        documents = _documents(file)
    except SkippedError as error:
        return (Reading(file.path, FileOutcome.SKIPPED, (str(error),)),)
    except RefusedError as error:
        return (Reading(file.path, FileOutcome.REFUSED, (str(error),)),)
    return tuple(
        _read_document(file.path if number == 1 else f"{file.path}#{number}", tree, corrections)
        for number, tree in enumerate(documents, start=1)
    )


def _documents(file: SourceFile) -> list[Tree]:
    if any(part.startswith(".") for part in file.path.split("/")):
        raise SkippedError("in a hidden folder, or hidden itself")
    if file.problem is not None:
        raise SkippedError(file.problem)
    if len(file.content) > MAX_FILE_BYTES:
        raise RefusedError(f"larger than {MAX_FILE_BYTES // 1024} KiB")
    try:
        text = file.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RefusedError(f"not UTF-8 text (byte {error.start})") from error
    try:
        documents = yaml_text.load_documents(text)
    except YamlError as error:
        raise RefusedError(str(error)) from error
    if not documents:
        raise SkippedError("empty")
    return documents


def _read_document(path: str, tree: Tree, corrections: Corrections) -> Reading:
    findings = Findings()
    try:
        document = _template_document(tree, findings)
        metadata = fields.mapping(document.get("metadata"), "metadata")
        fields.name(metadata, findings)
        spec = fields.mapping(document.get("spec"), "spec")
        _sound_fields(spec, metadata["name"], findings)
        document = yaml_text.plain(document)
        known = corrections.find(document["spec"].get("baseImage"))
        agrees = connect(document["spec"], known, findings)
        template = _canonical(document, known, findings)
    except SkippedError as error:
        return Reading(path, FileOutcome.SKIPPED, (str(error),))
    except RefusedError as error:
        return Reading(path, FileOutcome.REFUSED, (str(error),))
    return Reading(path, findings.outcome, findings.reasons, template, agrees)


def _template_document(tree: Tree, findings: Findings) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise SkippedError("not a mapping, so not a Template")
    kind, version = tree.get("kind"), tree.get("apiVersion")
    if kind != "Template":
        if not isinstance(kind, str):
            raise SkippedError("it has no kind, so it is not a Template")
        raise SkippedError(f"its kind is {kind[:60]}, not Template")
    if version is None:
        raise RefusedError("apiVersion is missing")
    if not isinstance(version, str):
        raise RefusedError("apiVersion is not a text")
    if version not in API_VERSIONS:
        known_groups = {known.partition("/")[0] for known in API_VERSIONS}
        if version.partition("/")[0] in known_groups:
            raise RefusedError(f"apiVersion: {version[:80]} is not known; use {API_VERSION}")
        raise SkippedError(f"a Template of another system ({version[:80]})")
    if version != API_VERSION:
        findings.noted(f"apiVersion {version} read as {API_VERSION}")
    return {**_copy(tree), "apiVersion": API_VERSION}


def _copy(tree: Tree) -> Any:
    """Aliases share subtrees; a copy of its own lets fields be changed in place."""
    match tree:
        case dict():
            return {key: _copy(value) for key, value in tree.items()}
        case list():
            return [_copy(item) for item in tree]
        case _:
            return tree


def _sound_fields(spec: dict[str, Any], name: str, findings: Findings) -> None:
    fields.readable(spec, name, findings)
    fields.categories(spec, findings)
    fields.tags(spec, findings)
    fields.text_list(spec, "capabilities", "spec.capabilities", findings)
    fields.icon(spec, findings)
    fields.image(spec, findings)
    fields.resources(spec, findings)
    fields.shm_size(spec, findings)
    fields.environment(spec, findings)
    fields.ports(spec, findings)
    for form in ("connection", "vnc", "kasmvnc", "webapp"):
        if isinstance(spec.get(form), dict):
            fields.whole_number(spec[form], "port", f"spec.{form}.port", findings)
    fields.volume_mounts(spec, findings)
    fields.process(spec, findings)
    if "baseImage" not in spec and "process" not in spec:
        raise RefusedError("spec.baseImage is missing (or spec.process, for plain processes)")


def _canonical(
    document: dict[str, Any], known: KnownImage | None, findings: Findings
) -> CanonicalTemplate:
    spec = document["spec"]
    if known is not None and known.shm_size and "shmSize" not in spec:
        spec["shmSize"] = known.shm_size
        findings.noted(f"spec.shmSize set to {known.shm_size}, which {known.repository} asks for")
    _refuse_control_characters(document, "")
    try:
        read = TemplateManifest.model_validate(document)
    except ValidationError as error:
        raise RefusedError(_first_problem(error)) from error
    # A null says what leaving the field out says; so that a digest does not change when a
    # later version knows more fields, it is left out.
    canonical = read.model_dump(mode="json", exclude_none=True)
    manifest = TemplateManifest.model_validate(canonical)
    process = manifest.spec.process
    if process is not None and not process.display and not manifest.spec.process_serves_http:
        raise RefusedError(
            "spec.process.display is false, so its command has to serve a web client: "
            "spec.connection.protocol must be http"
        )
    if len(canonical_json(canonical)) > MAX_MANIFEST_BYTES:
        raise RefusedError(f"the manifest is larger than {MAX_MANIFEST_BYTES // 1024} KiB")
    name = manifest.metadata.name
    if slug(name, 63) != name:
        findings.noted(f"metadata.name: {name!r} cannot name a resource; {slug(name, 63)!r} does")
    return CanonicalTemplate(manifest, canonical, digest_of(canonical), _unusable(manifest, known))


def _unusable(manifest: TemplateManifest, known: KnownImage | None) -> str | None:
    """Why no runtime can start it, if so; a process needs no image."""
    spec = manifest.spec
    if spec.process is not None:
        return None
    if known is not None:
        reason = known.unusable({entry.name: entry.value for entry in spec.env})
        if reason is not None:
            return reason
    if spec.connection is None:
        return "It declares no port, and its image is not a known one, so it cannot be reached."
    return None


def _refuse_control_characters(value: Any, field: str) -> None:
    match value:
        case str() if prose.has_control_characters(value):
            raise RefusedError(f"{field}: holds control characters")
        case list():
            for index, item in enumerate(value):
                _refuse_control_characters(item, f"{field}[{index}]")
        case dict():
            for key, item in value.items():
                if prose.has_control_characters(key):
                    raise RefusedError(f"{field}: a key holds control characters")
                _refuse_control_characters(item, f"{field}.{key}" if field else key)
        case _:
            pass


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ""
    for part in problem["loc"]:
        field += f"[{part}]" if isinstance(part, int) else f".{part}" if field else str(part)
    return f"{field}: {problem['msg']}"
