"""What is printed: streams such that writing to them ends nothing, texts without what steers a terminal, their width.

A character that a stream's encoding lacks becomes an escape, of a form that JSON has too. Whoever reads a stream may
go, as `| head -1` does: what is written to it after that goes nowhere, as hours of training are worth more than lines
that nobody reads.
"""

import codecs
import contextlib
import errno
import io
import itertools
import json
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, TextIO

_GONE = frozenset({errno.EPIPE, errno.EIO})
"""What a write says where the reader of a pipe, or a terminal, is gone."""
_ESCAPED = "ablation.escaped"
_INVISIBLE = ("Cc", "Cf", "Cs")
_USUAL_WIDTH = 80
_LEAST_WIDTH = 20
_UNIT = re.compile(r"`[^`]+`\S*|\S+")
"""What is not broken where it fits: a word, and a command in backticks."""
_COPIED = re.compile(r"[`/\\]")
"""Within what one copies, which is never broken: commands, paths, addresses, names of runs."""
_PIECES = re.compile(r"(\s*)([^\s,]*,|[^\s,]+)")
"""A word with the space before it; there may be a line's end behind a comma too."""
_INNER = re.compile(r"[^./=_:-]*[./=_:-]|[^./=_:-]+")


def make_unfailing() -> None:
    """Make this process's standard output and standard error such; what is no file of the system's stays as it is."""
    codecs.register_error(_ESCAPED, _escaped)
    sys.stdout = _unfailing(sys.stdout)
    sys.stderr = _unfailing(sys.stderr)


def _unfailing(stream: TextIO | None) -> TextIO:
    if stream is None:  # it was closed before this process began
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - as long as the process
    if not isinstance(stream, io.TextIOWrapper) or isinstance(getattr(stream.buffer, "raw", None), _Outlet):
        return stream
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return stream
    stream.flush()
    outlet = _Outlet(number, name=stream.name, is_terminal=stream.isatty())
    return io.TextIOWrapper(
        io.BufferedWriter(outlet),
        encoding=stream.encoding,
        errors=_ESCAPED,
        newline="\n",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Return `\\uXXXX` for each character that cannot be encoded, two of them for one beyond 16 bits."""
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    escapes = (f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
    return "".join(escapes), error.end


class _Outlet(io.RawIOBase):
    """A file descriptor that takes what is written to it, also when nobody reads it any more."""

    def __init__(self, number: int, *, name: str, is_terminal: bool) -> None:
        self.name = name
        self._number = number
        self._is_terminal = is_terminal

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, content: Any) -> int:
        try:
            return os.write(self._number, content)
        except OSError as error:
            if error.errno not in _GONE or (error.errno == errno.EIO and not self._is_terminal):
                raise
            self._lead_nowhere()
            return len(memoryview(content).cast("B"))

    def _lead_nowhere(self) -> None:
        """Put the null device in the place of the descriptor: other processes that have it write to it too."""
        self._is_terminal = False
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._number)
            os.close(nowhere)


def plain(text: str) -> str:
    """Return text without control and bidirectional characters, fit for a terminal; line ends and tabs stay."""
    if _is_harmless(text):
        return text
    return "".join(" " if _steers(char) and char != "\t" else char for char in text)


def width(stream: TextIO | None = None) -> int:
    """Return how many columns text on a stream, by default standard output, may take: at least 20.

    That is what the variable COLUMNS says, else the width of the stream's terminal, else 80.
    """
    given = os.environ.get("COLUMNS", "")
    columns = int(given) if given.isdecimal() else 0
    return max(_LEAST_WIDTH, columns or _columns_of(stream or sys.stdout) or _USUAL_WIDTH)


def _columns_of(stream: TextIO) -> int:
    """Return the width of a stream's terminal, 0 where it is none or does not say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 0
    except (OSError, ValueError):
        return 0


def cells(text: str) -> int:
    """Return how many columns of a terminal a text takes: wide characters take two, combining ones none."""
    return len(text) if text.isascii() and text.isprintable() else sum(map(_cells_of, text))


def _cells_of(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def wrapped(text: str, columns: int) -> str:
    """Return text with its lines broken at words; a line's indentation goes on in those that are made of it.

    A path, an address or a command in backticks that is longer stands alone on a line, whole, so that it can be copied;
    any other word that is longer is broken, behind what joins its parts where it has some.
    """
    return "\n".join(broken for line in text.split("\n") for broken in _broken(line, columns))


def _broken(line: str, columns: int) -> list[str]:
    if cells(line) <= columns:
        return [line]
    first = line[: len(line) - len(line.lstrip(" "))]
    later = f"{first}  " if first else ""
    lines: list[str] = []
    current = ""
    for gap, unit in _whole_units(line, columns - len(later)):
        indent = later if lines else first
        if current and cells(f"{indent}{current}{gap}{unit}") > columns:
            lines.append(f"{indent}{current}")
            current = unit
        else:
            current = f"{current}{gap}{unit}".lstrip()
    return [*lines, f"{later if lines else first}{current}"]


def _whole_units(line: str, room: int) -> Iterator[tuple[str, str]]:
    """Yield words and commands with the space before them, a name that is too wide in parts; paths stay whole."""
    for unit in _UNIT.findall(line):
        parts = [unit] if _COPIED.search(unit) else _cut(unit, room, cells)
        for number, part in enumerate(parts):
            yield "" if number else " ", part


def longest_piece(text: str) -> int:
    """Return the columns at which no word of a text is broken by `folded`."""
    return max((cells(piece) for _, piece in _PIECES.findall(text)), default=0)


def folded(text: str, columns: int, *, indent: str = "", measure: Callable[[str], float] = cells) -> list[str]:
    """Break a text at spaces and after commas; within a word only where that alone is too wide.

    `measure` returns the width of a text, in what `columns` counts.
    """
    lines = [""]
    for gap, unit in _units(text, columns - len(indent), measure):
        joined = f"{lines[-1]}{gap if lines[-1] else ''}{unit}"
        if not lines[-1] or measure(joined) <= columns:
            lines[-1] = joined
        else:
            lines.append(f"{indent}{unit}")
    return lines


def _units(text: str, room: int, measure: Callable[[str], float]) -> Iterator[tuple[str, str]]:
    """Yield what may stand on a line of its own, with the space before it."""
    for gap, piece in _PIECES.findall(text):
        for index, unit in enumerate(_cut(piece, room, measure)):
            yield (gap if index == 0 else ""), unit


def _cut(piece: str, room: int, measure: Callable[[str], float]) -> Iterator[str]:
    parts = _INNER.findall(piece) if measure(piece) > room else [piece]
    for part in parts:
        yield from [part] if measure(part) <= room else part


def clipped(line: str, columns: int) -> str:
    """Return a line that takes no more than so many columns, its end cut with `…` where it would."""
    if cells(line) <= columns:
        return line
    ends = itertools.accumulate(map(_cells_of, line))
    kept = sum(1 for _ in itertools.takewhile(lambda end: end < columns, ends))
    return f"{line[:kept].rstrip()}…"


def last_line(text: str | None, *, longest: int = 300) -> str:
    """Return the last line of a text that has something on it: of a traceback, the error; empty where there is none."""
    lines = [line for line in plain(text or "").splitlines() if line.strip()]
    line = lines[-1].strip() if lines else ""
    return line if len(line) <= longest else f"{line[:longest]}…"


def plain_json(text: str) -> str:
    """Return the same JSON with such characters escaped; it must have no tabs outside of its strings."""
    if _is_harmless(text):
        return text
    return "".join(json.dumps(char)[1:-1] if _steers(char) else char for char in text)


def _is_harmless(text: str) -> bool:
    """Whether nothing in a text can steer a terminal, told at once: long documents are nearly always such."""
    return text.isascii() and text.replace("\n", "").isprintable()


def _steers(char: str) -> bool:
    return char != "\n" and unicodedata.category(char) in _INVISIBLE


def remark(text: str) -> None:
    """Say what is no result of a command."""
    print(plain(text), file=sys.stderr)  # noqa: T201 - on standard error, as long as it has a reader
