"""YAML of strangers, read with limits.

A catalog's files are written by people we do not know, so this reader takes the
event stream of the C parser and builds plain values itself. That gives it what
`yaml.safe_load` does not have: a limit on nesting, on nodes and on aliases (a few
lines of nested aliases would otherwise unfold to gigabytes), refusal of keys
given twice, and one fixed meaning of plain scalars. It follows YAML 1.2 there:
`yes`, `12:30` and `2024-01-01` are text, as their authors meant them.

Numbers and booleans come out as `Scalar`, which still knows how it was written:
`PUID: 0755` in an environment must stay `0755` and not become 493.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

MAX_DEPTH = 24
MAX_NODES = 20_000
MAX_DOCUMENTS = 20

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]{1,400}|0o[0-7]{1,400}|0x[0-9a-fA-F]{1,400}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NULL = {"", "~", "null", "Null", "NULL"}
_TYPES_OF_TAGS: dict[str, tuple[type, ...]] = {
    f"{_TAG}null": (type(None),),
    f"{_TAG}bool": (bool,),
    f"{_TAG}int": (int,),
    f"{_TAG}float": (int, float),
}
_TRUE = {"true", "True", "TRUE"}
_FALSE = {"false", "False", "FALSE"}


class YamlError(ValueError):
    """The text is not YAML we accept; the message says what and where."""


@dataclass(frozen=True)
class Scalar:
    """A number or boolean, and the text it was written as."""

    text: str
    value: bool | int | float


Tree: TypeAlias = "str | Scalar | list[Tree] | dict[str, Tree] | None"


def load_documents(text: str) -> list[Tree]:
    """All documents of a file, empty ones left out.

    Raises:
        YamlError: broken YAML, a repeated key, a tag or number we do not take, or
            more nesting, nodes, aliases or documents than any manifest needs.
    """
    try:
        return _Builder(text).documents()
    except yaml.YAMLError as error:
        raise YamlError(_explain(error)) from error
    except RecursionError as error:
        raise YamlError("nested too deeply") from error


def plain(tree: Tree) -> Any:
    """The tree with every `Scalar` replaced by its value: what JSON can hold."""
    match tree:
        case Scalar():
            return tree.value
        case list():
            return [plain(item) for item in tree]
        case dict():
            return {key: plain(value) for key, value in tree.items()}
        case _:
            return tree


def _explain(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "not readable as YAML"
    if mark is None:
        return f"not valid YAML: {problem}"
    return f"not valid YAML: {problem} (line {mark.line + 1}, column {mark.column + 1})"


@dataclass(frozen=True)
class _Anchor:
    tree: Tree
    nodes: int


class _Builder:
    """Turns the events of one file into trees; `_nodes` counts aliases unfolded."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.CSafeLoader)
        self._nodes = 0
        self._anchors: dict[str, _Anchor] = {}

    def documents(self) -> list[Tree]:
        found: list[Tree] = []
        for event in self._events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            self._anchors = {}
            tree = self._build(next(self._events), depth=0)
            if tree is not None:
                found.append(tree)
            if len(found) > MAX_DOCUMENTS:
                raise YamlError(f"more than {MAX_DOCUMENTS} documents in one file")
        return found

    def _build(self, event: yaml.Event, *, depth: int) -> Tree:
        if depth > MAX_DEPTH:
            raise YamlError(f"nested more than {MAX_DEPTH} levels deep{_where(event)}")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self._nodes
        self._count(1)
        tree: Tree
        if isinstance(event, yaml.ScalarEvent):
            tree = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            tree = self._sequence(event, depth)
        elif isinstance(event, yaml.MappingStartEvent):
            tree = self._mapping(event, depth)
        else:
            raise YamlError(f"unexpected {type(event).__name__}{_where(event)}")
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self._anchors[anchor] = _Anchor(tree, self._nodes - before)
        return tree

    def _alias(self, event: yaml.AliasEvent) -> Tree:
        anchor = self._anchors.get(event.anchor or "")
        if anchor is None:
            raise YamlError(f"alias of an unknown anchor *{event.anchor}{_where(event)}")
        self._count(anchor.nodes)
        return anchor.tree

    def _sequence(self, event: yaml.SequenceStartEvent, depth: int) -> Tree:
        _only_default_tag(event, "seq")
        items: list[Tree] = []
        while not isinstance(following := next(self._events), yaml.SequenceEndEvent):
            items.append(self._build(following, depth=depth + 1))
        return items

    def _mapping(self, event: yaml.MappingStartEvent, depth: int) -> Tree:
        _only_default_tag(event, "map")
        own: dict[str, Tree] = {}
        merged: dict[str, Tree] = {}
        while not isinstance(key_event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(key_event, yaml.ScalarEvent):
                raise YamlError(f"a key is not a plain text{_where(key_event)}")
            key = key_event.value
            value = self._build(next(self._events), depth=depth + 1)
            if key == "<<" and key_event.implicit[0]:
                merged = {**_merge_sources(value, key_event), **merged}
            elif key in own:
                raise YamlError(f"the key {key!r} is given twice{_where(key_event)}")
            else:
                own[key] = value
        return {**merged, **own}

    def _count(self, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise YamlError(f"more than {MAX_NODES} values once aliases are unfolded")


def _merge_sources(value: Tree, event: yaml.Event) -> dict[str, Tree]:
    sources = value if isinstance(value, list) else [value]
    merged: dict[str, Tree] = {}
    for source in reversed(sources):
        if not isinstance(source, dict):
            raise YamlError(f"'<<' merges something that is not a mapping{_where(event)}")
        merged.update(source)
    return merged


def _only_default_tag(event: Any, kind: str) -> None:
    if event.tag not in (None, "!", f"{_TAG}{kind}"):
        raise YamlError(f"the tag {event.tag!r} is not accepted{_where(event)}")


def _scalar(event: yaml.ScalarEvent) -> Tree:
    tag, text = event.tag, event.value
    if tag in (None, "!"):
        # The first flag of `implicit` says: plain, so its type is to be guessed.
        return _resolve(text, event) if tag is None and event.implicit[0] else text
    if tag == f"{_TAG}str":
        return str(text)
    resolved = _resolve(text, event)
    value = resolved.value if isinstance(resolved, Scalar) else resolved
    if type(value) not in _TYPES_OF_TAGS.get(tag, ()):
        raise YamlError(f"the tag {tag!r} is not accepted for {text[:40]!r}{_where(event)}")
    return resolved


def _resolve(text: str, event: yaml.Event) -> Tree:
    """A plain scalar by the rules of YAML 1.2's core schema."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return Scalar(text, text in _TRUE)
    if _INT.fullmatch(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return Scalar(text, int(text, base))
    if _NOT_FINITE.fullmatch(text):
        raise YamlError(f"{text} is not a number that JSON can hold{_where(event)}")
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise YamlError(f"{text[:40]} is too large a number{_where(event)}")
        return Scalar(text, number)
    return text


def _where(event: yaml.Event) -> str:
    mark = event.start_mark
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
