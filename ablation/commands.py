"""Writes commands for a person to paste: with the options by which this process was led to its stores and its state."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

TAKEN: Mapping[str, tuple[str, ...]] = {
    "status": ("--tracking-uri", "--state-dir"),
    "sync": ("--storage", "--tracking-uri", "--state-dir"),
    "study": ("--storage", "--tracking-uri", "--state-dir"),
    "summarize": ("--tracking-uri",),
    "delete": ("--storage", "--tracking-uri", "--state-dir"),
}
"""Which of these options a command has."""


class Commands:
    """How this process was called, as far as other commands must be called alike; nothing where it was imported."""

    def __init__(self) -> None:
        self._program = "ablation"
        self._options: dict[str, str] = {}

    @contextmanager
    def called(self, program: str, options: Mapping[str, str]) -> Iterator[None]:
        """Note the program's name, and the options that were given on its command line, without their passwords."""
        before = self._program, self._options
        self._program, self._options = program, dict(options)
        try:
            yield
        finally:
            self._program, self._options = before

    def shown(self, name: str, *words: str) -> str:
        """Return a command with its words, and with those of the options given that it has."""
        given = [part for option in TAKEN[name] if option in self._options for part in (option, self._options[option])]
        return f"{self._program} {shlex.join([name, *words, *given])}"


commands = Commands()
"""This process's."""
