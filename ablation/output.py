"""What is printed: streams such that writing to them ends nothing, and texts without what steers a terminal.

A character that a stream's encoding lacks becomes an escape, of a form that JSON has too. Whoever reads a stream may
go, as `| head -1` does: what is written to it after that goes nowhere, as hours of training are worth more than lines
that nobody reads.
"""

import codecs
import contextlib
import errno
import io
import json
import os
import sys
import unicodedata
from typing import Any, TextIO

_GONE = frozenset({errno.EPIPE, errno.EIO})
"""What a write says where the reader of a pipe, or a terminal, is gone."""
_ESCAPED = "ablation.escaped"
_INVISIBLE = ("Cc", "Cf", "Cs")


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
    return "".join(" " if _steers(char) and char != "\t" else char for char in text)


def last_line(text: str | None, *, longest: int = 300) -> str:
    """Return the last line of a text that has something on it: of a traceback, the error; empty where there is none."""
    lines = [line for line in plain(text or "").splitlines() if line.strip()]
    line = lines[-1].strip() if lines else ""
    return line if len(line) <= longest else f"{line[:longest]}…"


def plain_json(text: str) -> str:
    """Return the same JSON with such characters escaped; it must have no tabs outside of its strings."""
    return "".join(json.dumps(char)[1:-1] if _steers(char) else char for char in text)


def _steers(char: str) -> bool:
    return char != "\n" and unicodedata.category(char) in _INVISIBLE
