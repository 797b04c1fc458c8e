"""The command that has all others: it shows a user's mistake as a sentence, and ends with its status."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
from click.core import ParameterSource
from click.exceptions import NoArgsIsHelpError

from ablation import __version__
from ablation.cli.say import say
from ablation.commands import commands
from ablation.errors import AblationError, is_no_room, os_error_text
from ablation.output import make_unfailing, plain, width, wrapped

USER_ERROR = 2
SOME_RUNS_FAILED = 1
HELP_WIDTH = 78
ORDER_OF_USE = (
    *("define", "components", "plan", "doctor", "study", "status", "summarize"),
    *("compare", "ui", "export", "sync", "delete"),
)
START = ("define --output mine.yaml", "plan mine.yaml", "study mine.yaml")
"""What to type first."""


class HelpFormatter(click.HelpFormatter):
    """Gives what is said of an option most of a narrow terminal, and the option a line of its own."""

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl(rows, min(col_max, self.width // 3), col_spacing)


class Context(click.Context):
    formatter_class = HelpFormatter


class Command(click.Command):
    """Notes the options that lead to stores and state, for the commands that messages name; `example` ends its help."""

    context_class = Context

    def __init__(self, *args: Any, example: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.example = example

    def get_short_help_str(self, limit: int = 0) -> str:  # noqa: ARG002 - it is whole, in as many lines as that takes
        return super().get_short_help_str(sys.maxsize)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_examples(formatter, "Example", [f"{ctx.command_path} {self.example}"])

    def invoke(self, ctx: click.Context) -> Any:
        given = {
            param.opts[0]: str(ctx.params[param.name])
            for param in self.params
            if param.name in ("storage", "tracking_uri", "state_dir")
            and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
            and ctx.params[param.name] is not None
        }
        if given:
            from ablation.storage.databases import without_password

            given = {option: without_password(value) for option, value in given.items()}
        with commands.called(str(ctx.find_root().info_name), given):
            return super().invoke(ctx)


class Commands(click.Group):
    """Shows a user's mistake as a sentence and ends with status 2; interruptions end with the signal's status."""

    command_class = Command
    context_class = Context

    def main(self, *args: Any, **options: Any) -> Any:
        make_unfailing()
        return super().main(*args, **options)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER_OF_USE.index)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_examples(formatter, "To begin with", [f"{ctx.command_path} {words}" for words in START])

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*args, terminal_width=min(HELP_WIDTH, width()), **options)
        except click.UsageError as error:
            raise _fitted(error) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AblationError as error:
            say(f"Error: {error}")
            ctx.exit(USER_ERROR)
        except click.UsageError as error:
            raise _fitted(error) from None
        except OSError as error:
            if error.errno is None:  # no system refused anything
                raise
            what = f"cannot {'write' if is_no_room(error) else 'use'} {error.filename}: " if error.filename else ""
            say(f"Error: {what}{os_error_text(error)}")
            ctx.exit(USER_ERROR)


def _write_examples(formatter: click.HelpFormatter, title: str, lines: Sequence[str]) -> None:
    """Write commands that one can type, each whole on its line."""
    with formatter.section(title):
        for line in lines:
            formatter.write(f"{' ' * formatter.current_indent}{line}\n")


def _fitted(error: click.UsageError) -> click.UsageError:
    """Return a mistake on the command line with its sentence no wider than standard error; help is as it was."""
    if isinstance(error, NoArgsIsHelpError):
        return error
    text = wrapped(f"Error: {plain(error.format_message())}", width(sys.stderr))
    return click.UsageError(text.removeprefix("Error: "), error.ctx)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ablation")
def main() -> None:
    """Which parts of a neural network matter, by how much, how surely, at what cost?"""
