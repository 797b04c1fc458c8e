"""Starts commands: each as a process of its own, or, much quicker, forked from one that has imported everything."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import forking

SEARCHED = (Path(__file__).parent / "injected", forking.QUICK, forking.PROJECT)
"""Where what is killed is imported from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command of Python's, `-m` and what follows, and where it runs; `output` is a file."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    output: Path


class Starter(Protocol):
    """Runs commands, one at a time."""

    def status(self, command: Command, *, limit_s: float) -> int:
        """Return a command's exit status, minus the signal's number where one ended it; it is killed at the limit."""


class Plainly:
    """Starts each command as a process of its own."""

    def status(self, command: Command, *, limit_s: float) -> int:
        with command.output.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command.arguments],
                env=dict(command.environment),
                cwd=command.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            try:
                return process.wait(timeout=limit_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return 128


class Forking:
    """Starts each command from one process that has imported everything; it ends with this one, or a `with`."""

    def __init__(self, folder: Path) -> None:
        """Start it; what it leaves among temporary files lies in a folder."""
        self._starter = forking.Starter(folder, searched=SEARCHED)

    def __enter__(self) -> "Forking":
        return self

    def __exit__(self, *_: object) -> None:
        """End it: there are no more commands."""
        self._starter.__exit__()

    def status(self, command: Command, *, limit_s: float) -> int:
        process = self._starter.start(
            command.arguments, environment=command.environment, folder=command.folder, output=command.output
        )
        try:
            return process.wait(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
