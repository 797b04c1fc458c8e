"""How wide text is: no wider than the terminal, and nothing that one copies is broken."""

import os
import pty
import re
import struct
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablation.cli.layout import INDENT, table_text, whole_table_text
from ablation.output import cells, clipped, width, wrapped
from ablation.report.table import Table

WORDS = st.lists(st.text("abc,./=`你 é", min_size=1, max_size=12), max_size=30).map(" ".join)


@pytest.mark.parametrize(("columns", "found"), [("100", 100), ("7", 20), ("0", 80), ("", 80), ("-3", 80), ("wide", 80)])
def test_the_variable_columns_says_how_wide_text_is(
    columns: str, found: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)

    with (tmp_path / "file").open("w") as file:
        assert found == width(file)


@pytest.mark.parametrize(("columns", "found"), [(97, 97), (0, 80)])
def test_a_terminal_says_how_wide_text_is(columns: int, found: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    monkeypatch.delenv("COLUMNS", raising=False)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    with os.fdopen(slave, "w") as stream:
        assert found == width(stream)
    os.close(master)


def test_a_command_a_path_and_an_address_are_never_broken() -> None:
    copied = [
        "/home/someone/" + "a/" * 20 + "report.html",
        "http://127.0.0.1:5000/#/experiments/1/runs/0123456789abcdef",
    ]
    command = f"`ablation study {copied[0]} --retry-failed`"

    lines = wrapped(f"  Failed runs are trained again by {command}. See {copied[0]} and {copied[1]} for more.", 40)

    stripped = [line.strip(" .") for line in lines.splitlines()]
    assert {*copied, command} <= {*stripped}
    assert all(line.startswith("  ") for line in lines.splitlines())


@given(text=WORDS, columns=st.integers(20, 60))
def test_a_wrapped_line_is_too_wide_only_where_it_is_one_path_or_command(text: str, columns: int) -> None:
    lines = wrapped(text, columns).split("\n")

    assert "".join(text.split()) == "".join("".join(lines).split())
    for line in lines:
        assert cells(line) <= columns or "`" in line or ("/" in line and " " not in line.strip())


def test_a_name_wider_than_the_terminal_is_broken_behind_what_joins_its_words() -> None:
    lines = wrapped("Seen only at learning_rate_schedule=cosine_with_restarts, depth=2.", 24)

    assert lines.splitlines() == ["Seen only at learning_", "rate_schedule=cosine_", "with_restarts, depth=2."]


@given(text=st.text(), columns=st.integers(20, 60))
def test_a_clipped_line_is_no_wider_and_says_that_it_is_cut(text: str, columns: int) -> None:
    line = clipped(text, columns)

    assert cells(line) <= columns
    assert line == text or (line.endswith("…") and text.startswith(line[:-1]))


CELLS = st.text("ab,. =/_-→你é0123", max_size=60)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Return a table whose columns can be told by the number that their heads begin with."""
    names = draw(st.lists(CELLS, min_size=1, max_size=8))
    rows = draw(st.lists(st.tuples(*[CELLS] * len(names)), max_size=5))
    heads = tuple(f"«{index}»{name}" for index, name in enumerate(names))
    return Table(head=heads, rows=tuple(rows), text_columns=draw(st.integers(0, len(names))))


def shown_cells(table: Table, left_out: str) -> list[str]:
    kept = [index for index in range(len(table.head)) if f"«{index}»" not in left_out]
    return [row[index] for row in (table.head, *table.rows) for index in kept]


@given(table=tables(), columns=st.integers(40, 200))
def test_no_line_of_a_table_is_wider_and_no_letter_of_a_column_that_is_kept_is_lost(table: Table, columns: int) -> None:
    whole = table_text(table, columns)
    text, _, left_out = whole.partition("\nleft out for width:")

    shown = shown_cells(table, left_out)
    assert all(cells(line) <= columns for line in whole.splitlines())
    assert Counter("".join("".join(shown).split())) == Counter("".join(text.replace("─", "").split()))
    assert "«0»" in text


@given(table=tables(), columns=st.integers(40, 200))
def test_no_word_of_a_table_is_broken_that_fits(table: Table, columns: int) -> None:
    text, _, left_out = table_text(table, columns).partition("\nleft out for width:")

    pieces = [piece for cell in shown_cells(table, left_out) for piece in re.findall(r"[^\s,]*,|[^\s,]+", cell)]
    assert all(piece in text for piece in pieces if cells(piece) <= columns - len(INDENT))


def test_the_least_important_columns_go_first_and_are_named() -> None:
    table = Table(
        head=("variant", "min to max", "mean", "dominated by"),
        rows=(("normalization=batch,depth=3", "91.00 % to 93.00 %", "92.00 %", "normalization=none"),),
    )

    left_out = [table_text(table, columns).rpartition("left out for width: ")[2] for columns in (90, 60, 40)]

    assert left_out == [
        table_text(table, 90),
        "dominated by; all columns: COLUMNS=76 or\n--json",
        "min to max,\ndominated by; all columns: COLUMNS=76 or\n--json",
    ]


def test_a_variant_breaks_behind_a_comma() -> None:
    table = Table(head=("variant", "mean"), rows=(("depth=2,normalization=batch,activation=gelu", "92.00 %"),))

    assert table_text(table, 40).splitlines()[2:] == [
        "depth=2,normalization=batch,     92.00 %",
        "  activation=gelu",
    ]


def test_a_table_that_leaves_nothing_out_has_a_line_per_cell_where_its_words_do_not_fit() -> None:
    path = "/" + "very/" * 12 + "long"
    table = Table(head=("what", "found"), rows=(("cores", "2 usable"), ("state folder", path)), text_columns=2)

    assert ["cores: 2 usable", "state folder:", path] == whole_table_text(table, 40).splitlines()
    assert table_text(table, 100) == whole_table_text(table, 100)
    assert "left out" in table_text(table, 40)
