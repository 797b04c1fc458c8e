"""Ends a command in good order when a signal asks it to, and says how to resume."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator

import click

from ablation.cli.say import say

ENDING = b"\nEnding: waiting for what is under way to be kept and recorded. Once more ends at once.\n"


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn a signal that asks to end into an exception, say how to go on, and end with the signal's status."""
    command = this_command()
    from ablation.stopping import end_at_once, stopping

    with stopping.listening(on_asked=_say_ending):
        try:
            yield
        except KeyboardInterrupt:
            with contextlib.suppress(OSError):
                say(
                    "Interrupted. What had ended is kept, and what was under way as far as its last checkpoint. "
                    "Resume with the same command:"
                )
                click.echo(f"  {command}", file=sys.stderr)  # whole, to be copied
            end_at_once(stopping.signal)  # all is in order; the interpreter would take two more seconds to tidy up


def this_command() -> str:
    """Return the command line for a shell that goes on; passwords in addresses are not shown."""
    from ablation.storage.databases import without_password

    given = [word for word in sys.argv[1:] if word != "--fresh"]  # again would be from the beginning again
    words = [*str(click.get_current_context().find_root().info_name).split(), *given]
    return shlex.join(map(without_password, words))


def _say_ending() -> None:
    """Say what is waited for, where no live view says it."""
    with contextlib.suppress(OSError):  # whoever read it is gone
        os.write(2, ENDING)  # safe in a handler
