"""Prints what a command was asked for, and says what else there is to say."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click

from ablation.errors import AblationError
from ablation.output import plain, width, wrapped


def print_result(text: str, *, nl: bool = True) -> None:
    """Print what a command was asked for, in the encoding that standard output has: click by itself takes UTF-8."""
    click.echo(text, nl=nl, file=sys.stdout)


def print_sentences(text: str) -> None:
    """Print sentences that a command was asked for, no wider than standard output."""
    print_result(wrapped(plain(text), width()))


def say(text: str) -> None:
    """Say what is no result of the command; whatever of it comes from elsewhere is text, also to a terminal."""
    click.echo(wrapped(plain(text), width(sys.stderr)), file=sys.stderr)


def writing(path: Path, write: Callable[[], object]) -> None:
    try:
        write()
    except OSError as error:
        refuse(f"cannot write {path}: {error.strerror} @ --output")


def refuse(message: str) -> NoReturn:
    raise AblationError(message)
