"""Turns the text of a study file (YAML 1.2) into plain values and the line each of them stands on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, DocumentStartEvent, NodeEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from ablation.errors import Problem, StudyFileError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 50

Location = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS: Mapping[str, Any] = {
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
MAX_DIGITS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The plain values of a file, and the 1-based line of each by its location (keys and indices from the top)."""

    values: Mapping[str, Any]
    lines: Mapping[Location, int]


def read_document(content: bytes, *, source: str) -> Document:
    """Read a study file.

    Plain scalars follow the core schema of YAML 1.2: `1e-3` is a number, `no` a string.

    Raises:
        StudyFileError: not UTF-8 YAML, too large, nested too deep, with aliases, tags, duplicate keys, several
            documents, or something else than a mapping at the top.
    """
    try:
        text = _decode(content)
        _check_events(text)
        node = _reader().compose(text)
    except _Refused as refused:
        raise StudyFileError(source, [refused.problem]) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise StudyFileError(source, [_syntax_problem(error)]) from None
    if not isinstance(node, MappingNode):
        raise StudyFileError(source, [Problem(message="a study file is a mapping of keys to values; this is not")])
    lines: dict[Location, int] = {}
    problems: list[Problem] = []
    values = _plain(node, (), lines, problems)
    if problems:
        raise StudyFileError(source, problems)
    return Document(values=values, lines=lines)


def read_value(text: str) -> Any:
    """Read one value as a study file would, for `--set PATH=VALUE`.

    Raises:
        ValueError: the text is not one YAML value.
    """
    try:
        _check_events(text)
        node = _reader().compose(text)
    except _Refused as refused:
        raise ValueError(str(refused.problem)) from None
    except (YAMLError, RecursionError) as error:
        raise ValueError(_syntax_problem(error).message) from None
    problems: list[Problem] = []
    value = None if node is None else _plain(node, (), {}, problems)
    if problems:
        raise ValueError("; ".join(map(str, problems)))
    return value


def path_of(location: Location) -> str:
    """Render a location as a path: `factors.model.depth[1]`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class _Refused(Exception):
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem)


def _reader() -> YAML:
    return YAML(typ="safe", pure=True)


def _decode(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise _Refused(Problem(message=f"is {len(content)} bytes long; a study file has at most {MAX_BYTES}"))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _Refused(Problem(message="is not UTF-8 text", line=line)) from None


def _check_events(text: str) -> None:
    """Refuse, before anything is built, what could run code, explode or recurse."""
    depth = documents = 0
    for event in _reader().parse(text):
        line = event.start_mark.line + 1
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _Refused(Problem(message="holds more than one document; a study file is one", line=line))
        if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
            raise _Refused(Problem(message="anchors and aliases (& and *) are not allowed; write it out", line=line))
        tag = getattr(event, "ctag", None)
        if isinstance(event, NodeEvent) and tag is not None and str(tag) not in ("", "None"):
            raise _Refused(Problem(message=f"tags are not allowed: {tag}", line=line))
        if isinstance(event, CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _Refused(Problem(message=f"is nested more than {MAX_DEPTH} levels deep", line=line))
        elif isinstance(event, CollectionEndEvent):
            depth -= 1


def _syntax_problem(error: Exception) -> Problem:
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return Problem(
            message=f"is not valid YAML: {error.problem or error.context}", line=mark.line + 1 if mark else None
        )
    return Problem(message=f"is not valid YAML: {str(error).splitlines()[0] if str(error) else 'cannot be read'}")


def _plain(node: Node, location: Location, lines: dict[Location, int], problems: list[Problem]) -> Any:
    lines.setdefault(location, node.start_mark.line + 1)
    if isinstance(node, ScalarNode):
        return _scalar(node)
    if isinstance(node, SequenceNode):
        return [_plain(item, (*location, index), lines, problems) for index, item in enumerate(node.value)]
    assert isinstance(node, MappingNode)
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode):
            problems.append(Problem(message="a key must be plain text", path=path_of(location), line=line))
            continue
        key = str(key_node.value)
        if key in mapping:
            problems.append(Problem(message=f"key {key!r} stands twice", path=path_of(location), line=line))
        lines[(*location, key)] = line
        mapping[key] = _plain(value_node, (*location, key), lines, problems)
    return mapping


def _scalar(node: ScalarNode) -> Any:
    text = str(node.value)
    if node.style is not None:  # quoted, literal or folded: always text
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) <= MAX_DIGITS and _INTEGER.fullmatch(text):
        return int(text)
    if len(text) <= MAX_DIGITS and _FLOAT.fullmatch(text):
        return float(text)
    return text
