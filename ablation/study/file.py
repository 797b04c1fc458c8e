"""Turns the text of a study file (YAML 1.2) into plain values and the line each of them stands on."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from ablation.errors import CarriedError, Problem, StudyFileError

MAX_BYTES = 1024 * 1024
MAX_LINE = 100_000
MAX_DEPTH = 50
MAX_VALUES = 10_000
MAX_DIGITS = 300  # below the largest float, and below what Python refuses to read
MAX_SHOWN = 80

Location = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_PLAIN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
_CONSTANTS: Mapping[str, Any] = {
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The plain values of a file, and the 1-based line of each by its location (keys and indices from the top).

    `problems` are those that leave the rest readable, such as a key that stands twice: its last value is kept.
    """

    values: Mapping[str, Any]
    lines: Mapping[Location, int]
    problems: tuple[Problem, ...]


def read_document(content: bytes, *, source: str) -> Document:
    """Read a study file.

    Plain scalars follow the core schema of YAML 1.2, but that numbers are decimal and finite: `1e-3` is a number,
    `no`, `0x10`, `.inf` and dates are text.

    Raises:
        StudyFileError: not UTF-8 YAML, too large, nested too deep, with aliases or tags, several documents, or
            something else than a mapping at the top.
    """
    try:
        reading = _Reading(_decode(content))
        values = reading.document()
        if not isinstance(values, Mapping):
            raise _Refused("a study file is a mapping of keys to values; this is not")
    except _Refused as refused:
        raise StudyFileError(source, [refused.problem]) from None
    return Document(values=values, lines=reading.lines, problems=tuple(reading.problems))


def document_of(values: Mapping[str, Any], *, source: str) -> Document:
    """Take a study file's values as Python has them: tuples become lists, numbers of numpy's and paths become plain.

    Raises:
        StudyFileError: a key is no text, or a value is none that a study file can hold.
    """
    problems: list[Problem] = []
    plain = _plain(values, (), problems)
    if problems:
        raise StudyFileError(source, problems)
    return Document(values=plain, lines={}, problems=())


def read_value(text: str) -> Any:
    """Read one value as a study file would, for `--set PATH=VALUE`.

    Raises:
        ValueError: the text is not one YAML value.
    """
    try:
        reading = _Reading(text)
        value = reading.document()
    except _Refused as refused:
        raise ValueError(refused.problem.message) from None
    if reading.problems:
        raise ValueError("; ".join(problem.message for problem in reading.problems))
    return value


def is_unicode(text: str) -> bool:
    """Whether a text has no half of a surrogate pair, which no file and no database takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def path_of(location: Location) -> str:
    """Render a location as a path: `factors.model.depth[1]`."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{_key_text(part)}" if text else _key_text(part)
    return text


def location_of(path: str) -> Location:
    """Read a path as `path_of` writes it; a path below `factors` or `tune` is one key, as in `factors.model.depth`."""
    section = path.partition(".")[0]
    parts, location = path.split("."), list[str | int]()
    if section in ("factors", "tune"):
        keys = [index for index, part in enumerate(parts) if part in ("data", "model", "training")]
        # The settings of a recipe's level stand below it: `factors.recipe.sgd.training.momentum`.
        if keys and (section == "factors" or keys[0] == 1):
            parts = [*parts[: keys[0]], ".".join(parts[keys[0] :])]
    for part in parts:
        indices = re.search(r"(\[[0-9]{1,6}\])*$", part)
        assert indices is not None
        location += [part[: indices.start()], *map(int, re.findall(r"[0-9]+", indices[0]))]
    return tuple(location)


def value_text(value: Any) -> str:
    """Write a plain value as YAML on one line, text always quoted: `null`, `[3, 5]`, `'batch'`."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return "'" + value.replace("'", "''") + "'" if value.isprintable() else f'"{"".join(map(_escaped, value))}"'
        case list() | tuple():
            return f"[{', '.join(map(value_text, value))}]"
        case Mapping():
            return "{" + ", ".join(f"{_key_text(key)}: {value_text(item)}" for key, item in value.items()) + "}"
        case _:
            return str(value)


def shown(value: Any) -> str:
    """Write a value as YAML for a message, cut where it is long."""
    text = value_text(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def plain_text(text: str) -> str:
    """Write text as YAML, quoted only where it would be read as something else."""
    return text if _PLAIN_TEXT.fullmatch(text) and text not in _CONSTANTS else value_text(text)


def is_plain_text(text: str) -> bool:
    """Whether a file may have this text unquoted where a value stands, and it is read as text."""
    return not (text in _CONSTANTS or _INTEGER.fullmatch(text) or _FLOAT.fullmatch(text))


def _plain(value: Any, location: Location, problems: list[Problem]) -> Any:
    """Return a value as YAML gives it; what cannot be one is added to the problems."""
    match value:
        case Mapping() if len(location) < MAX_DEPTH:
            if location[:1] == ("factors",) and location[2:] == ("labels",):
                value = {_level_key(key): label for key, label in value.items()}
            named = {key: _key_problem(key) for key in value}
            problems += [Problem(message=said, path=path_of(location)) for said in named.values() if said]
            return {key: _plain(value[key], (*location, key), problems) for key, said in named.items() if not said}
        case list() | tuple() if len(location) < MAX_DEPTH:
            return [_plain(item, (*location, index), problems) for index, item in enumerate(value)]
        case PathLike():
            return fspath(value)
        case _ if getattr(value, "shape", None) == () and hasattr(value, "item"):  # a number of numpy's
            return _plain(value.item(), location, problems)
    if (problem := _scalar_problem(value)) is not None:
        problems.append(Problem(message=problem, path=path_of(location)))
    return value


def _level_key(level: object) -> object:
    """Return a level as YAML has it for a key: as text."""
    return value_text(level) if level is None or isinstance(level, bool | int | float | tuple) else level


def _key_problem(key: object) -> str | None:
    if not isinstance(key, str):
        return f"a key must be text, not {key!r}"
    return None if is_unicode(key) else f"a key must be Unicode text, not {key!a}"


def _scalar_problem(value: object) -> str | None:
    """Return why a study file cannot hold a value, in words, or None."""
    match value:
        case None | bool():
            return None
        case str():
            return None if is_unicode(value) else "is not Unicode text"
        case int():
            return None if abs(value) < 10**MAX_DIGITS else f"has more than {MAX_DIGITS} digits"
        case float():
            return None if math.isfinite(value) else f"must be a finite number, not {value}"
        case Mapping() | list() | tuple():
            return f"is nested more than {MAX_DEPTH} levels deep"
    kind = type(value).__name__
    article = "an" if kind[0].lower() in "aeiou" else "a"
    if callable(value):
        return f"is {article} {kind}: keep it in a .py file and write its name, as in 'nets.py:build'"
    return f"is {article} {kind}, which a study file cannot hold; give plain text, numbers, lists and mappings"


def _key_text(key: str) -> str:
    return key if key and len(key) <= MAX_SHOWN and key.isprintable() else shown(key)


def _escaped(char: str) -> str:
    if char.isprintable() and char not in ('"', "\\"):
        return char
    return json.dumps(char)[1:-1] if char <= "\uffff" else f"\\U{ord(char):08x}"


class _Refused(CarriedError):
    """What makes all of a text unreadable, or dangerous to read."""

    def __init__(self, message: str, line: int | None = None) -> None:
        self.problem = Problem(message=message, line=line)
        super().__init__(message)


def _decode(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise _Refused("is larger than 1 MiB, the most that a study file may have")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Refused("is not UTF-8 text", content[: error.start].count(b"\n") + 1) from None
    for number, line in enumerate(text.splitlines(), start=1):
        if len(line) > MAX_LINE:  # the reader takes quadratic time over some
            raise _Refused(f"has a line of more than {MAX_LINE} characters", number)
    return text


class _Reading:
    """One pass over a text, building plain values; what could run code, explode or recurse is refused on the way."""

    def __init__(self, text: str) -> None:
        self._events = _events(text)
        self._values = 0
        self.lines: dict[Location, int] = {}
        self.problems: list[Problem] = []

    def document(self) -> Any:
        """Return the value of the only document; None where the text has none."""
        value, documents = None, 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Refused("holds more than one document; a study file is one", _line(event))
                value = self._value(next(self._events), ())
        return value

    def _value(self, event: Event, location: Location) -> Any:
        self._check(event, depth=len(location) + 1)
        self.lines.setdefault(location, _line(event))
        if isinstance(event, ScalarEvent):
            return _scalar(event)
        if isinstance(event, SequenceStartEvent):
            return [self._value(item, (*location, index)) for index, item in enumerate(self._until_end())]
        return self._mapping(location)

    def _mapping(self, location: Location) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for event in self._until_end():
            if isinstance(event, ScalarEvent):
                self._check(event, depth=len(location) + 1)
                if not is_unicode(str(event.value)):
                    raise _Refused(f"has a key that is not Unicode text: {shown(str(event.value))}", _line(event))
                here = (*location, str(event.value))
                self._note_key(event, here, is_repeated=event.value in mapping)
                mapping[str(event.value)] = self._value(next(self._events), here)
            else:
                problem = Problem(message="a key must be plain text", path=path_of(location), line=_line(event))
                self.problems.append(problem)
                self._value(event, (*location, 0))
                self._value(next(self._events), (*location, 0))
        return mapping

    def _note_key(self, event: Event, location: Location, *, is_repeated: bool) -> None:
        line = _line(event)
        if is_repeated:
            message = f"stands twice, first on line {self.lines[location]}"
            self.problems.append(Problem(message=message, path=path_of(location), line=line))
        self.lines.setdefault(location, line)

    def _until_end(self) -> Iterator[Event]:
        for event in self._events:
            if isinstance(event, CollectionEndEvent):
                return
            yield event

    def _check(self, event: Event, *, depth: int) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _Refused(f"holds more than {MAX_VALUES} keys and values", _line(event))
        if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
            raise _Refused("anchors and aliases (& and *) are not allowed; write it out", _line(event))
        if getattr(event, "ctag", None) is not None:
            raise _Refused("tags (!) are not allowed; write the plain value", _line(event))
        if isinstance(event, CollectionStartEvent) and depth > MAX_DEPTH:
            raise _Refused(f"is nested more than {MAX_DEPTH} levels deep", _line(event))


def _events(text: str) -> Iterator[Event]:
    try:
        yield from YAML(typ="safe", pure=True).parse(text)
    except (YAMLError, ValueError, OverflowError) as error:
        raise _syntax_refusal(error, text) from None


def _line(event: Event) -> int:
    return int(event.start_mark.line) + 1


def _syntax_refusal(error: Exception, text: str) -> _Refused:
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return _Refused(f"is not valid YAML: {error.problem or error.context}", mark.line + 1 if mark else None)
    if isinstance(error, ReaderError):
        return _Refused(
            f"is not valid YAML: has the character #x{error.character:04x}", text.count("\n", 0, error.position) + 1
        )
    return _Refused("is not valid YAML: has an escape that stands for no character")


def _scalar(event: ScalarEvent) -> Any:
    text = str(event.value)
    if event.style:  # quoted, literal or folded: always text
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) <= MAX_DIGITS and _INTEGER.fullmatch(text):
        return int(text)
    if len(text) <= MAX_DIGITS and _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text
