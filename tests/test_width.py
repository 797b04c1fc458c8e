"""How wide text is: no wider than the terminal, and nothing that one copies is broken."""

import os
import pty
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablation.output import cells, clipped, width, wrapped

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
def test_a_wrapped_line_is_too_wide_only_where_it_is_one_unbroken_word(text: str, columns: int) -> None:
    lines = wrapped(text, columns).split("\n")

    assert "".join(text.split()) == "".join("".join(lines).split())
    for line in lines:
        assert cells(line) <= columns or " " not in line.strip() or line.strip().startswith("`")


@given(text=st.text(), columns=st.integers(20, 60))
def test_a_clipped_line_is_no_wider_and_says_that_it_is_cut(text: str, columns: int) -> None:
    line = clipped(text, columns)

    assert cells(line) <= columns
    assert line == text or (line.endswith("…") and text.startswith(line[:-1]))
