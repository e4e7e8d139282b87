"""The fields of a manifest, one by one: checked, and coerced where that is safe.

Works on the tree as read, where numbers still know their text, and changes it in
place. What it leaves is of the shape `TemplateManifest` takes.
"""

import re
from typing import Any, TypeAlias

from streamspace_catalog_sync.manifest import prose
from streamspace_catalog_sync.manifest.corrections import is_image_reference
from streamspace_catalog_sync.manifest.findings import Findings, RefusedError
from streamspace_catalog_sync.manifest.yaml_text import Scalar, Tree

Mapping: TypeAlias = dict[str, Any]

MAX_NAME = 253
MAX_DISPLAY_NAME = 120
MAX_TAGS = 50

_QUANTITY = re.compile(
    r"(?P<number>\d{1,18}(\.\d{0,9})?|\.\d{1,9})(?P<unit>n|u|m|k|Ki|[MGTPE]i?|[eE][+-]?\d{1,2})?"
)
_CONTAINER_SIZE = re.compile(r"(\d{1,12})\s*(b|k|kb|m|mb|g|gb)?", re.IGNORECASE)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,252}")
_TABLER_ICON = re.compile(r"tabler:[a-z0-9]+(-[a-z0-9]+)*")
_HTTP_URL = re.compile(r"https?://[^\s<>\"'\\]{3,2000}")


def mapping(value: Tree, field: str) -> Mapping:
    if value is None:
        raise RefusedError(f"{field} is missing")
    if not isinstance(value, dict):
        raise RefusedError(f"{field} is not a mapping")
    return value


def texts(owner: Mapping, key: str, field: str, findings: Findings) -> None:
    """Make `owner[key]` a text, where it is there; a number keeps the text it was given as."""
    value = owner.get(key)
    if isinstance(value, Scalar):
        owner[key] = value.text
        findings.corrected(f"{field}: {value.text} taken as text")
    elif value is None:
        owner.pop(key, None)
    elif not isinstance(value, str):
        raise RefusedError(f"{field} is not a text")


def text_list(owner: Mapping, key: str, field: str, findings: Findings) -> list[str]:
    """Make `owner[key]` a list of texts, where it is there, and return it."""
    value = owner.get(key)
    if value is None:
        owner.pop(key, None)
        return []
    if not isinstance(value, list):
        raise RefusedError(f"{field} is not a list")
    items: Mapping = {str(index): item for index, item in enumerate(value) if item is not None}
    for index in list(items):
        texts(items, index, f"{field}[{index}]", findings)
    owner[key] = list(items.values())
    return list(owner[key])


def name(metadata: Mapping, findings: Findings) -> None:
    """`metadata.name` stays as its author wrote it, whatever it is."""
    texts(metadata, "name", "metadata.name", findings)
    value = metadata.get("name", "")
    if not value.strip():
        raise RefusedError("metadata.name is missing")
    if len(value) > MAX_NAME:
        raise RefusedError(f"metadata.name is longer than {MAX_NAME} characters")


def readable(spec: Mapping, default_name: str, findings: Findings) -> None:
    """Display name and description: tidy, and never longer than a screen bears."""
    texts(spec, "displayName", "spec.displayName", findings)
    texts(spec, "description", "spec.description", findings)
    for key in ("displayName", "description"):
        if key in spec and prose.has_control_characters(spec[key]):
            spec[key] = prose.without_control_characters(spec[key])
            findings.corrected(f"spec.{key}: control characters removed")
    display_name = " ".join(spec.get("displayName", "").split())
    if not display_name:
        display_name = default_name
        findings.corrected("spec.displayName is missing; metadata.name is shown")
    if len(display_name) > MAX_DISPLAY_NAME:
        findings.corrected(f"spec.displayName: shortened to {MAX_DISPLAY_NAME} characters")
    spec["displayName"] = prose.shortened(display_name, MAX_DISPLAY_NAME)
    _description(spec, findings)


def _description(spec: Mapping, findings: Findings) -> None:
    written = spec.get("description", "").strip()
    bare = prose.without_markdown(written).strip()
    if bare != written:
        findings.corrected("spec.description: Markdown removed")
    if len(bare) > prose.MAX_DESCRIPTION:
        findings.corrected(f"spec.description: shortened to {prose.MAX_DESCRIPTION} characters")
    spec["description"] = prose.shortened(bare, prose.MAX_DESCRIPTION)


def categories(spec: Mapping, findings: Findings) -> None:
    """`category` (one text, often several with commas) and `categories` become one list."""
    texts(spec, "category", "spec.category", findings)
    listed = text_list(spec, "categories", "spec.categories", findings)
    written = [*([spec["category"]] if "category" in spec else []), *listed]
    cleaned = [prose.without_control_characters(item) for item in written]
    if cleaned != written:
        findings.corrected("spec.category: control characters removed")
        if "category" in spec:
            spec["category"] = cleaned[0]
    canonical = prose.categories(cleaned)
    spec["categories"] = list(canonical)
    if {item.strip() for item in cleaned} - set(canonical):
        shown = ", ".join(canonical) or "none"
        findings.corrected(f"spec.category: {'; '.join(cleaned)!r} read as {shown}")


def tags(spec: Mapping, findings: Findings) -> None:
    """Tags, each once, lower case; texts with commas are several tags."""
    written = text_list(spec, "tags", "spec.tags", findings)
    parts = (prose.without_control_characters(part) for tag in written for part in tag.split(","))
    found = [" ".join(part.split()).lower() for part in parts]
    kept = list(dict.fromkeys(tag[:60] for tag in found if tag))[:MAX_TAGS]
    if kept != written:
        findings.corrected("spec.tags: split on commas, lower case, each once")
    spec["tags"] = kept


def icon(spec: Mapping, findings: Findings) -> None:
    """Only a web address or one of our own named icons; anything else is left out."""
    texts(spec, "icon", "spec.icon", findings)
    value = spec.get("icon", "").strip()
    if _TABLER_ICON.fullmatch(value) or _HTTP_URL.fullmatch(value):
        spec["icon"] = value
        return
    if spec.pop("icon", None):
        findings.corrected("spec.icon: neither an http(s) address nor tabler:<name>; left out")


def image(spec: Mapping, findings: Findings) -> None:
    texts(spec, "baseImage", "spec.baseImage", findings)
    value = spec.get("baseImage", "").strip()
    if not value:
        spec.pop("baseImage", None)
        return
    if not is_image_reference(value):
        raise RefusedError(f"spec.baseImage: {value[:80]!r} is not an image reference")
    spec["baseImage"] = value


def resources(spec: Mapping, findings: Findings) -> None:
    if spec.get("defaultResources") is None:
        spec.pop("defaultResources", None)
        return
    amounts = mapping(spec["defaultResources"], "spec.defaultResources")
    for key in ("cpu", "memory"):
        field = f"spec.defaultResources.{key}"
        texts(amounts, key, field, findings)
        if key in amounts and not is_positive_quantity(amounts[key]):
            raise RefusedError(
                f"{field}: {amounts[key][:40]!r} is not a quantity such as "
                f"{'500m' if key == 'cpu' else '2Gi'}"
            )


def is_positive_quantity(text: str) -> bool:
    """Whether this is a Kubernetes quantity above zero."""
    match = _QUANTITY.fullmatch(text)
    return match is not None and float(match["number"]) > 0


def shm_size(spec: Mapping, findings: Findings) -> None:
    """A Kubernetes quantity; `1gb`, as container engines write it, becomes `1Gi`."""
    texts(spec, "shmSize", "spec.shmSize", findings)
    written = spec.get("shmSize")
    if written is None:
        return
    engine = _CONTAINER_SIZE.fullmatch(written.strip())
    if engine and engine[2]:
        unit = {"b": "", "k": "Ki", "m": "Mi", "g": "Gi"}[engine[2][0].lower()]
        spec["shmSize"] = f"{int(engine[1])}{unit}"
    if not is_positive_quantity(spec["shmSize"]):
        raise RefusedError(f"spec.shmSize: {written[:40]!r} is not a size such as 1Gi")
    if spec["shmSize"] != written:
        findings.corrected(f"spec.shmSize: {written} written as {spec['shmSize']}")


def environment(spec: Mapping, findings: Findings) -> None:
    """Names are checked; values become texts, just as they were written."""
    entries = _entries(spec, "env")
    for index, entry in enumerate(entries):
        field = f"spec.env[{index}]"
        texts(entry, "name", f"{field}.name", findings)
        texts(entry, "value", f"{field}.value", findings)
        if not _ENV_NAME.fullmatch(entry.get("name", "")):
            raise RefusedError(f"{field}.name: {entry.get('name', '')[:80]!r} cannot name one")


def ports(spec: Mapping, findings: Findings) -> None:
    for index, entry in enumerate(_entries(spec, "ports")):
        field = f"spec.ports[{index}]"
        whole_number(entry, "containerPort", f"{field}.containerPort", findings)
        number = entry.get("containerPort")
        number = number.value if isinstance(number, Scalar) else number
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= 65535:
            raise RefusedError(f"{field}.containerPort: not a port from 1 to 65535")
        texts(entry, "name", f"{field}.name", findings)
        entry.setdefault("name", f"port-{number}")
        texts(entry, "protocol", f"{field}.protocol", findings)


def whole_number(owner: Mapping, key: str, field: str, findings: Findings) -> None:
    """Make a number of a text of digits; other types are left for the checks after it."""
    value = owner.get(key)
    if isinstance(value, str) and value.isascii() and value.strip().isdigit():
        owner[key] = Scalar(value, int(value[:10]))
        findings.corrected(f"{field}: the text {value!r} taken as a number")


def volume_mounts(spec: Mapping, findings: Findings) -> None:
    for index, entry in enumerate(_entries(spec, "volumeMounts")):
        field = f"spec.volumeMounts[{index}]"
        texts(entry, "name", f"{field}.name", findings)
        texts(entry, "mountPath", f"{field}.mountPath", findings)
        path = entry.get("mountPath", "")
        if not path.startswith("/") or ".." in path.split("/"):
            raise RefusedError(f"{field}.mountPath: {path[:80]!r} is not an absolute path")


def process(spec: Mapping, findings: Findings) -> None:
    if spec.get("process") is None:
        spec.pop("process", None)
        return
    form = mapping(spec["process"], "spec.process")
    if not text_list(form, "command", "spec.process.command", findings):
        raise RefusedError("spec.process.command is missing: the program and its arguments")


def _entries(spec: Mapping, key: str) -> list[Mapping]:
    value = spec.get(key)
    if value is None:
        spec.pop(key, None)
        return []
    if not isinstance(value, list):
        raise RefusedError(f"spec.{key} is not a list")
    return [mapping(entry, f"spec.{key}[{index}]") for index, entry in enumerate(value)]
