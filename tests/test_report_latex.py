"""Holds the LaTeX tables to printing what the report's tables say, whatever the texts are."""

import re
import shutil
import subprocess
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablation.report import latex
from ablation.report.latex import latex_document, latex_table, latex_text
from ablation.report.table import Table

SPECIALS = r"\{}$&#%_^~"
BACK = {text: character for character, text in (latex._ASCII | latex._SYMBOLS).items() if character != "μ"}
HOSTILE = Table(
    head=("a & b", "[b]", "a head of several words"),
    rows=(
        ("[0.1]", "*", "1"),
        ("*", "[", "2"),
        ("".join(map(chr, range(33, 127))), "-- --- ,, '' `` ?` !` << >>", "3"),
        ("".join(latex._SYMBOLS), unicodedata.normalize("NFC", " ".join("e" + mark for mark in latex._ACCENTS)), "4"),
        ("中文 😀 \x00\x1b\u202e", "line\nbreak\r\n\n\nparagraph", "5"),
        ("x" * 5000, "word " * 1000, "6" * 5000),
        (r"\end{tabular}\input{/etc/passwd}", "\\" * 30 + "{" * 20 + "}" * 3, ""),
    ),
    text_columns=2,
)


def printed(text: str) -> str:
    """Read LaTeX of `latex_text` back as the characters that it prints; fail on anything else."""
    found, position = [], 0
    pieces = sorted(BACK, key=len, reverse=True)
    while position < len(text):
        if code_point := re.compile(r"\{\[\}U\+([0-9A-F]{4,6})\]").match(text, position):
            found.append(chr(int(code_point.group(1), 16)))
            position = code_point.end()
        elif accented := re.compile(r"(\\[`'^~=.\"]|\\[uvrHdck])\{([A-Za-z])\}").match(text, position):
            marks = {accent: mark for mark, accent in latex._ACCENTS.items()}
            found.append(unicodedata.normalize("NFC", accented.group(2) + marks[accented.group(1)]))
            position = accented.end()
        elif text.startswith("{}", position):
            position += 2
        elif piece := next((piece for piece in pieces if text.startswith(piece, position)), ""):
            found.append(BACK[piece])
            position += len(piece)
        else:
            assert text[position] not in SPECIALS
            found.append(text[position])
            position += 1
    return "".join(found)


def cells(text: str) -> list[list[str]]:
    """Return the cells of a table's rows, its head among them."""
    rows = re.findall(r"^    (?!\\(?:top|mid|bottom)rule)(.*) \\\\$", text, re.MULTILINE)
    return [re.split(r"(?<!\\) & |(?<=^)& | &(?=$)", row) for row in rows]


@pytest.mark.parametrize("character", SPECIALS)
def test_every_special_character_is_printed(character):
    assert character == printed(latex_text(character))
    assert latex_text(character) != character


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8") | st.sampled_from(SPECIALS + "−–→×±≤≥²…“”é[]*-,'`"), max_size=60))
def test_what_is_printed_is_the_text(text):
    line = unicodedata.normalize("NFC", " ".join(latex.plain(text).split()))

    assert latex_text(text).isascii()
    assert line.replace("μ", "µ") == printed(latex_text(text)).replace("μ", "µ")


def test_the_reports_own_signs_have_signs_in_latex():
    text = latex_text("✓ − – → × ± ≤ ≥ ² … “a” ‘b’ é ü ß")

    assert r"$\checkmark$ $-$ -- $\rightarrow$ $\times$ $\pm$ $\leq$ $\geq$ $^{2}$ \ldots{}" in text
    assert "U+" not in text


def test_signs_that_latex_would_join_stay_apart():
    assert "-{}-{}- ,{}, '{}'" == latex_text("--- ,, ''")


def test_a_line_end_takes_nothing_of_the_next_row_as_its_argument():
    text = latex_table(Table(head=("[a]", "*"), rows=(("[0.1]", "1"), ("*", "2"))), caption="", label="")

    assert not re.search(r"(?:\\\\|rule)\s*[\[*]", text)


def test_columns_are_aligned_as_the_report_aligns_them():
    table = Table(head=("a", "b", "c"), rows=(("1", "2", "3"),), text_columns=2)

    assert r"\begin{tabular}{llr}" in latex_table(table, caption="", label="")


def test_every_row_has_every_column():
    rows = cells(latex_table(HOSTILE, caption="", label=""))

    assert [3] * (1 + len(HOSTILE.rows)) == [len(row) for row in rows]


def test_a_long_text_breaks_lines_and_a_very_long_one_is_cut():
    table = Table(head=("a",), rows=(("depth=2,normalization=batch " * 200,),))
    text = latex_table(table, caption="", label="")

    assert r"p{13em}" in text
    assert r"depth=2,\allowbreak{}normalization=\allowbreak{}batch" in text
    assert r"\ldots{} \\" in text
    assert len(text) < 1200


@pytest.mark.parametrize(
    ("columns", "environment", "is_shrunk"), [(3, "table", False), (7, "table", True), (12, "sidewaystable", True)]
)
def test_a_wide_table_is_made_to_fit(columns, environment, is_shrunk):
    table = Table(head=("a",) * columns, rows=(("1,234,567.89",) * columns,))
    text = latex_table(table, caption="", label="")

    assert text.startswith(rf"\begin{{{environment}}}")
    assert text.endswith(f"\\end{{{environment}}}\n")
    assert is_shrunk == (r"\resizebox" in text)


def test_braces_and_environments_are_balanced():
    text = latex_table(HOSTILE, caption=SPECIALS, label=SPECIALS)
    bare = re.sub(r"\\[\\{}]", "", text)

    assert bare.count("{") == bare.count("}")
    assert re.findall(r"\\begin\{(\w+)\}", text) == re.findall(r"\\end\{(\w+)\}", text)[::-1]


def test_a_label_has_no_character_that_latex_reads():
    text = latex_table(Table(head=("a",), rows=()), caption="", label="tab:5 % of_a\\{}")

    assert r"\label{tab:5-of-a-}" in text


def test_equal_tables_give_equal_text_in_one_file_that_names_its_packages():
    tables = [latex_table(HOSTILE, caption="a", label="a"), latex_table(HOSTILE, caption="b", label="b")]
    text = latex_document(tables)

    assert latex_document(iter(tables)) == text
    assert text.isascii()
    assert all(table in text for table in tables)
    for package in ("booktabs", "array", "graphicx", "rotating", "amssymb"):
        assert package in text.partition(r"\begin")[0]


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="needs pdflatex: apt-get install texlive-latex-recommended"
)
def test_pdflatex_compiles_whatever_is_in_a_table(tmp_path):
    tables = [HOSTILE, Table(head=("a",), rows=()), Table(head=("a",) * 12, rows=(("1,234,567.89",) * 12,))]
    text = latex_document(
        latex_table(table, caption=f"{SPECIALS} − {index}", label=f"tab:{index}") for index, table in enumerate(tables)
    )
    packages = "".join(line.removeprefix("%").strip() + "\n" for line in text.splitlines() if r"\usepackage" in line)
    document = f"\\documentclass{{article}}\n{packages}\\begin{{document}}\n\\listoftables\n{text}\\end{{document}}\n"
    (tmp_path / "main.tex").write_text(document, encoding="ascii")

    for _ in range(2):  # the second time with the list of tables
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"],
            cwd=tmp_path,
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout[-2000:]

    assert (tmp_path / "main.pdf").exists()
