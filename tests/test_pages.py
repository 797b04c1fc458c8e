"""The pages that people read: every link leads somewhere, and what is listed from the package is what the package has.

After a change of a key, an option or a metric the lists are written again, and read before they are committed:
    ABLATION_WRITE_GOLDEN=1 pytest tests/test_pages.py
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import PROJECT
from reference_pages import MEANINGS, command_line_reference, keys_without_words, study_file_reference

from ablation import cli
from ablation.analysis.boundaries import boundaries
from ablation.analysis.statistics import detectable_difference
from ablation.cli.group import ORDER_OF_USE
from ablation.errors import StudyFileError
from ablation.study import parse_study

PAGES = sorted(
    page for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "studies/*/*.md") for page in PROJECT.glob(pattern)
)
WRITTEN = re.compile(r"(<!-- written from the package: .* -->\n)(.*)(<!-- end -->)", re.DOTALL)
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
STUDY = re.compile(r"^```yaml\n((?:# study\.yaml\n)?name: .*?)```", re.MULTILINE | re.DOTALL)
MOST_LINES_OF_THE_README = 150
LINK = re.compile(r"\]\(([^)\s]+)\)")


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _name(page: Path) -> str:
    return page.relative_to(PROJECT).as_posix()


@pytest.mark.parametrize(
    ("name", "reference"),
    [("study-file.md", study_file_reference), ("command-line.md", command_line_reference)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_reference_page_lists_what_the_package_has(name: str, reference: Callable[[], str]) -> None:
    page = PROJECT / "docs" / name
    expected = f"\n{reference()}\n"
    if os.environ.get("ABLATION_WRITE_GOLDEN"):
        text = WRITTEN.sub(lambda found: found[1] + expected + found[3], _text(page))
        page.write_text(text, encoding="utf-8", newline="\n")

    found = WRITTEN.search(_text(page))

    assert found
    assert expected == found[2]


def test_every_command_has_its_place_in_the_order_of_use() -> None:
    assert sorted(ORDER_OF_USE) == sorted(cli.main.commands)


def test_a_key_has_its_meaning_from_one_place() -> None:
    assert set(MEANINGS) == keys_without_words()


@pytest.mark.parametrize("page", [page for page in PAGES if _text(page).count("\nname: ")], ids=_name)
def test_a_whole_study_file_on_a_page_is_a_valid_one(page: Path) -> None:
    problems = [problem for text in STUDY.findall(_text(page)) if (problem := _problem_of(text, page))]

    assert [] == problems


def test_the_differences_that_concepts_says_are_found_are_those_that_are_computed() -> None:
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) SD \|$", _text(PROJECT / "docs" / "concepts.md"), re.MULTILINE)
    digits = {seeds: len(shown.partition(".")[2]) for seeds, shown in rows}

    assert rows
    assert rows == [
        (seeds, f"{detectable_difference(1.0, int(seeds), alpha=0.05):.{places}f}") for seeds, places in digits.items()
    ]


def test_the_boundaries_that_statistics_lists_are_those_that_are_computed() -> None:
    table = _text(PROJECT / "docs" / "statistics.md").partition("| comparisons | ")[2].partition("\n\n")[0]
    head, _, *rows = table.splitlines()
    looks = [int(seeds) for seeds in re.findall(r"(\d+) seeds", head)]

    assert [5, 8, 12, 20] == looks
    assert ["1", "2", "4", "8"] == [row.split()[1] for row in rows]
    assert rows == [_boundaries_row(looks, comparisons=int(row.split()[1])) for row in rows]


def test_the_readme_is_short() -> None:
    assert len(_text(PROJECT / "README.md").splitlines()) <= MOST_LINES_OF_THE_README


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    links = LINK.findall(CODE.sub("", _text(page)))

    assert [] == [link for link in links if not _leads_somewhere(link, page)]


@pytest.mark.parametrize("page", sorted((PROJECT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_page_is_linked_from_the_readme(page: Path) -> None:
    assert f"](docs/{page.name})" in _text(PROJECT / "README.md")


def test_a_dead_link_and_a_dead_anchor_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `page`, read\n\n## Twice\n\n## Twice\n\n```\n# no heading\n```\n", encoding="utf-8")
    links = ["page.md#a-page-read", "#twice-1", "https://example.org/", "#no-heading", "#twice-2", "no-page.md"]

    assert [True, True, True, False, False, False] == [_leads_somewhere(link, page) for link in links]


def _boundaries_row(looks: Sequence[int], *, comparisons: int) -> str:
    limits = (f"{boundary.t:.2f}" for boundary in boundaries(looks, 0.05 / comparisons))
    return f"| {comparisons} | {' | '.join(limits)} |"


def _problem_of(text: str, page: Path) -> str:
    """Return what is wrong with a study file as it stands on a page; files that it names may be missing."""
    try:
        parse_study(text.encode(), source=_name(page))
    except StudyFileError as error:
        return str(error)
    return ""


def _leads_somewhere(link: str, page: Path) -> bool:
    """Whether a link's file exists, and has a heading of its anchor; addresses outside are not asked."""
    if re.match(r"[a-z]+:", link):
        return True
    name, _, anchor = link.partition("#")
    target = page.parent / name if name else page
    return target.exists() and (not anchor or anchor in _anchors(target))


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings; one that stands again is numbered."""
    found: dict[str, int] = {}
    anchors = set()
    for heading in re.findall(r"^#+ +(.+)$", CODE.sub("", _text(page)), re.MULTILINE):
        anchor = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        times = found.get(anchor, 0)
        found[anchor] = times + 1
        anchors.add(f"{anchor}-{times}" if times else anchor)
    return anchors
