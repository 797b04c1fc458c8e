"""Help is read by somebody who does not know the commands yet: in the order of use, whole, with what to type."""

import re
import shlex

import click
import pytest
from click.testing import CliRunner

from ablation.cli import main
from ablation.cli.group import ORDER_OF_USE, START
from ablation.output import cells


def help_of(*words: str, columns: int = 80) -> list[str]:
    result = CliRunner().invoke(main, [*words, "--help"], prog_name="ablation", env={"COLUMNS": str(columns)})
    assert 0 == result.exit_code
    return result.stdout.splitlines()


def parsed(words: str) -> tuple[str, click.Context]:
    """Parse a command as it would be typed, and do nothing."""
    name, command, rest = main.resolve_command(click.Context(main), shlex.split(words))
    assert command is not None
    return str(name), command.make_context(name, rest)


def test_commands_stand_in_the_order_of_use_and_are_told_whole_on_a_line_of_80_columns() -> None:
    lines = help_of()
    begin = lines.index("Commands:") + 1

    shown = [line.split(maxsplit=1) for line in lines[begin : begin + len(ORDER_OF_USE)]]

    assert list(ORDER_OF_USE) == [name for name, _ in shown]
    assert all(summary.endswith(".") and not summary.endswith("..") for _, summary in shown)


@pytest.mark.parametrize("words", [(), *((name,) for name in ORDER_OF_USE)], ids=lambda words: " ".join(words) or "all")
@pytest.mark.parametrize("columns", [40, 60, 80])
def test_help_is_no_wider_than_the_terminal_but_for_what_one_copies(words: tuple[str, ...], columns: int) -> None:
    lines = help_of(*words, columns=columns)

    wide = [line.strip() for line in lines if cells(line) > columns]
    assert all(line.startswith("ablation ") or re.fullmatch(r"--[a-z-]+ \S+", line) for line in wide)
    assert columns < 80 or len(wide) <= 1  # an example, of a command that takes two variants


@pytest.mark.parametrize("name", ORDER_OF_USE)
def test_help_of_a_command_ends_with_an_example_that_can_be_typed(name: str) -> None:
    begin, example = help_of(name)[-2:]

    assert "Example:" == begin
    assert name == parsed(example.strip().removeprefix("ablation "))[0]


def test_help_ends_with_what_to_type_first() -> None:
    lines = help_of()[-4:]

    assert ["To begin with:", *(f"  ablation {words}" for words in START)] == lines
    assert ["define", "plan", "study"] == [parsed(words)[0] for words in START]
