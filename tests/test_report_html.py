"""Holds the HTML report to being one well-formed page that loads nothing, runs nothing and loses nothing."""

import base64
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ablation.analysis.answer_records import Verdict
from ablation.report.html import html_document
from ablation.report.marks import CROSSOVER, INTERPLAY, MARKS
from ablation.report.markup import code, escaped, fenced, html_text, table_text
from ablation.report.table import Table

GOLDEN = (Path(__file__).parent / "golden" / "report.md").read_text(encoding="utf-8")
PNG, SVG = (
    b"\x89PNG\r\n\x1a\n" + bytes(8),
    b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><text>100 % "a" &amp; #1</text></svg>',
)
PATHS = re.findall(r"\]\((figures/[^)]+)\)", GOLDEN)
PICTURES = {path: PNG + path.encode() for path in PATHS}

VOID = {"meta", "link", "img", "br", "hr", "wbr"}
ELEMENTS = VOID | set(
    re.findall(
        r"\w+",
        "html head title style body a nav ul ol li main h1 h2 h3 h4 h5 h6 p section div table thead tbody tr th td "
        "figure figcaption details summary span code pre strong em s blockquote small h3 "
        "svg rect line circle path text",
    )
)
ATTRIBUTES = set(
    re.findall(
        r"[\w-]+",
        "id class href src alt title aria-label aria-labelledby role scope tabindex start lang charset content name "
        "http-equiv rel aria-hidden width height x y x1 x2 y1 y2 cx cy r d",
    )
)


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    text: str = ""
    parents: list["Element"] = field(default_factory=list)


class Page(HTMLParser):
    """Reads a page strictly: every element is closed where it was opened."""

    def __init__(self, document: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self.open: list[Element] = []
        self.feed(document)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs), parents=list(self.open))
        assert len(attrs) == len(element.attributes), f"an attribute twice in <{tag}>"
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert tag not in VOID
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        for element in self.open:
            element.text += data

    def all(self, tag: str) -> list[Element]:
        return [element for element in self.elements if element.tag == tag]

    def in_main(self, tag: str) -> list[Element]:
        return [element for element in self.all(tag) if "main" in {parent.tag for parent in element.parents}]

    def values(self, attribute: str) -> list[str]:
        return [element.attributes[attribute] or "" for element in self.elements if attribute in element.attributes]


def read(markdown: str, *, title: str = "a study", pictures: dict[str, bytes] | None = None) -> Page:
    return Page(html_document(markdown, title=title, pictures=pictures or {}))


@pytest.fixture(scope="module")
def golden() -> Page:
    return read(GOLDEN, pictures=PICTURES)


def check_harmless(page: Page) -> None:
    assert {element.tag for element in page.elements} <= ELEMENTS
    assert {name for element in page.elements for name in element.attributes} <= ATTRIBUTES
    assert all(source.startswith(("data:image/png;base64,", "data:image/svg+xml,")) for source in page.values("src"))
    for link in page.all("a"):
        assert re.match(r"https?://|#|[^:\\/?#][^:\\]*$", link.attributes["href"] or "", re.IGNORECASE)
    assert [link.attributes for link in page.all("link")] == [{"rel": "icon", "href": "data:,"}]
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    targets = [link.attributes["href"] for nav in page.all("nav") for link in page.all("a") if nav in link.parents]
    assert {f"#{name}" for name in ids} >= set(targets)


def test_golden_report_becomes_a_harmless_page(golden):
    check_harmless(golden)


def test_nothing_but_data_can_be_loaded(golden):
    policies = [meta.attributes["content"] for meta in golden.all("meta") if "http-equiv" in meta.attributes]
    style = golden.all("style")[0].text

    assert [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    ] == policies
    assert not re.search(r"url\(|@import|@font-face|</", style)


def test_no_text_of_the_report_is_lost(golden):
    parser = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    expected = Page(f"<main>{parser.render(GOLDEN)}</main>".replace(" />", ">"))

    assert expected.all("main")[0].text.split() == golden.all("main")[0].text.split()


def test_every_picture_is_inside_once_with_its_words(golden):
    shown = [(image.attributes["src"], image.attributes["alt"]) for image in golden.all("img")]
    captions = [caption.text for caption in golden.all("figcaption")]
    alternatives = re.findall(r"!\[([^]]*)\]", GOLDEN)

    sources = [f"data:image/png;base64,{base64.b64encode(PICTURES[path]).decode()}" for path in PATHS]
    assert list(zip(sources, alternatives, strict=True)) == shown
    assert re.findall(r"!\[.*\n\n(.+)\n", GOLDEN) == captions
    assert all(image.parents[-1].tag == "figure" for image in golden.all("img"))


def test_equal_inputs_give_equal_bytes_whatever_the_order_of_pictures():
    again = html_document(GOLDEN, title="a study", pictures=dict(reversed(PICTURES.items())))

    assert html_document(GOLDEN, title="a study", pictures=PICTURES) == again


def test_contents_list_the_second_and_third_headings_in_order(golden):
    links = [link for link in golden.all("a") if "nav" in {parent.tag for parent in link.parents}]

    assert re.findall(r"^##+ (.+)$", GOLDEN, re.MULTILINE) == [link.text for link in links]


def test_equal_headings_get_ids_of_their_own():
    page = read("## Cost\n\n## Cost\n\n### Cost 2\n\n## Contents\n\n## Report\n\n## →")

    assert ["contents", "cost", "cost-2", "cost-2-2", "contents-2", "report-2", "section"] == [
        name for name in page.values("id") if name != "report"
    ]
    check_harmless(page)


def test_every_fold_of_the_report_is_one_of_the_page(golden):
    summaries = [summary.text.split() for summary in golden.in_main("summary")]
    headings = {heading.text for heading in golden.all("h2")}
    written = re.findall(r"(?:^## (.*)\n\n)?<details><summary>(.*)</summary>", GOLDEN, re.MULTILINE)

    assert [f"{heading} {summary}".split() for heading, summary in written] == summaries
    assert {heading for heading, _ in written} - {""} <= headings
    assert "details" not in golden.all("main")[0].text


def test_what_comes_after_variants_and_curves_is_folded(golden):
    headings = [heading.text for heading in golden.all("h2")]
    folded = [heading.text for heading in golden.all("h2") if "summary" in {parent.tag for parent in heading.parents}]

    assert ["Answers", "Variants", "Curves", "The study", "Scorecard", "Factors"] == headings[:6]
    assert headings[3:] == folded


def test_a_link_to_a_folded_section_leads_inside_its_fold():
    page = read("## One\n\n<details><summary>a hint</summary>\n\ntext\n\n### Two\n\nmore\n\n</details>")

    targets = {element.attributes.get("id"): element for element in page.elements}
    links = [link.attributes["href"] for link in page.all("a") if "nav" in {parent.tag for parent in link.parents}]
    assert ["#one", "#two"] == links
    for name in ("one", "two"):
        tags = [parent.tag for parent in targets[name].parents]
        assert "details" in tags
        assert "summary" not in tags
    (heading,) = page.all("h2")
    assert ("summary", "One") == (heading.parents[-1].tag, heading.text)
    assert ["one:title"] == [section.attributes["aria-labelledby"] for section in page.all("section")]
    check_harmless(page)


def test_folds_within_folds_stay_so():
    inner = "<details><summary>b</summary>\n\ntext\n\n</details>"
    page = read(f"<details><summary>a</summary>\n\n{inner}\n\n{inner}\n\n</details>\n\nafter")

    assert ["a", "b", "b"] == [summary.text for summary in page.in_main("summary")]
    assert [0, 1, 1] == [sum(parent.tag == "details" for parent in fold.parents) for fold in page.all("details")]
    assert ["main"] == [text.parents[-1].tag for text in page.all("p") if text.text == "after"]


@pytest.mark.parametrize(
    "markdown",
    [
        "<details><summary>a</summary>\n\ntext",
        "text\n\n</details>",
        "<details><summary>a</summary>\n\n## Heading\n\n</details>",
        "<details open><summary>a</summary>\n\ntext\n\n</details>",
        "> <details><summary>a</summary>\n\n</details>",
    ],
)
def test_only_a_whole_part_is_folded(markdown):
    page = read(markdown)

    assert [] == page.in_main("details")
    assert "details" in page.all("main")[0].text
    check_harmless(page)


def test_a_summary_is_text():
    page = read("<details><summary>a &lt;b&gt; <script>x</script></summary>\n\ntext\n\n</details>")

    assert ["a <b> <script>x</script>"] == [summary.text for summary in page.all("summary")]
    check_harmless(page)


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_is_marked_in_tables(verdict):
    words = "do not add up" if MARKS[verdict] is INTERPLAY else verdict.value
    table = Table(head=("comparison", "verdict"), rows=((words, f"{words}, meaningfully"),))

    badges = [(badge.attributes["class"], badge.text) for badge in read(table_text(table)).all("span")]
    assert [(f"badge {MARKS[verdict].name}", words)] == badges


def test_every_verdict_has_its_marks_colour_and_shape(golden):
    style = golden.all("style")[0].text

    marks = {*MARKS.values(), CROSSOVER}
    for mark in marks:
        assert f'.{mark.name} {{ --verdict: {mark.colour}; --shape: "{mark.shape}"; }}' in style
    assert len(marks) == style.count('--shape: "')


def test_words_that_only_begin_like_a_verdict_get_no_badge():
    table = Table(head=("comparison", "verdict", "metric"), rows=(("helps", "helpsome", "hurts"),), text_columns=3)

    assert [] == read(table_text(table)).all("span")


def test_numbers_are_aligned_as_the_report_aligns_them():
    page = read(table_text(Table(head=("name", "number"), rows=(("a", "1"),))))

    cells = [(cell.tag, cell.attributes) for cell in page.elements if cell.tag in ("th", "td")]
    assert [
        ("th", {"scope": "col"}),
        ("th", {"class": "right", "scope": "col"}),
        ("th", {"scope": "row"}),
        ("td", {"class": "right"}),
    ] == cells


def test_a_paragraph_that_introduces_something_is_no_caption():
    page = read("![a](a.png)\n\nWhat was estimated:\n\n1. b", pictures={"a.png": PNG})

    assert [] == page.all("figcaption")
    assert len(page.all("figure")) == 1


def test_svg_is_told_from_png():
    page = read("![a](a%20b.svg)\n\n![b](b.png)", pictures={"a b.svg": SVG, "b.png": PNG})

    svg, png = page.values("src")
    assert unquote_to_bytes(svg.removeprefix("data:image/svg+xml,")) == SVG.replace(b">\n<", b"><")
    assert base64.b64decode(png.removeprefix("data:image/png;base64,")) == PNG


def test_another_kind_of_picture_is_an_error():
    with pytest.raises(ValueError, match=r"a\.gif is neither a PNG nor an SVG file"):
        html_document("", title="", pictures={"a.gif": b"GIF89a"})


@pytest.mark.parametrize("path", ["figures/other.png", "https://example.org/a.png", "//example.org/a.png"])
def test_an_unknown_image_is_its_words(path):
    page = read(f"see ![the *words*]({path})", pictures=PICTURES)

    assert [] == page.all("img")
    assert "words" in page.all("main")[0].text
    check_harmless(page)


HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "text <svg onload=alert(1)> text",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt&colon;alert(1))",
    "[a](\tjavascript&#58;alert(1))",
    "<javascript:alert(1)>",
    "[a](vbscript:x) [b](file:///etc/passwd) [c](mailto:a@example.org)",
    "[a](data:text/html;base64,PHNjcmlwdD4=) ![a](data:image/svg+xml;base64,PHN2Zz4=)",
    "[a](//example.org) [b](/\\example.org) [c](\\\\example.org) [d](/root)",
    '[a](x "title\\" onclick=alert(1)")',
    '![a" onerror="alert(1)](figures/forest.png "b\\" onload=alert(1)")',
    '```"><script>alert(1)</script>\n</code><script>\n```',
    "## <script>alert(1)</script>\n\n## \" onclick=alert(1) '",
    "| <script> | onclick |\n| --: | :-: |\n| [a](javascript:x) | </table><script> |",
    "[a]: javascript:alert(1)\n\n[a] ![a]",
    "</main></body></html><script>alert(1)</script>",
    "<!-- --><style>@import 'http://example.org';</style><base href=http://example.org>",
    '<meta http-equiv="refresh" content="0;url=http://example.org">',
    "{{ 7 * 7 }}{% raw %}",
)


@pytest.mark.parametrize("markdown", HOSTILE)
def test_no_markup_gets_through(markdown):
    check_harmless(read(markdown, title=markdown, pictures=PICTURES))


PIECES = st.sampled_from(
    [*HOSTILE, "<details><summary>", "</summary>", "</details>", "## Answers", "1. **a helps**", "\n"]
)
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=30)


@settings(deadline=None)
@given(st.lists(PIECES | ANY_TEXT | st.text("|*_`[]()<>\\&#-+=1. ab~$!:\n", max_size=30), max_size=8), ANY_TEXT)
def test_no_mixture_of_markup_gets_through(pieces, title):
    for glue in ("", "\n", "\n\n"):
        check_harmless(read(glue.join(pieces), title=title, pictures=PICTURES))


@settings(deadline=None)
@given(ANY_TEXT | st.sampled_from(HOSTILE))
def test_escaped_text_is_shown_as_it_is_everywhere(text):
    table = Table(head=(text, "verdict"), rows=((text, text),))
    lines = [
        f"## {escaped(text)}",
        f"![{escaped(text)}](figures/forest.png)",
        f"x {escaped(text)}",
        f"1. {escaped(text)}",
    ]
    folded = f"<details><summary>{html_text(text)}</summary>\n\n{code(text) if text.strip() else ''}\n\n</details>"
    page = read("\n\n".join([*lines, table_text(table), folded, fenced(text)]), title=text, pictures=PICTURES)

    check_harmless(page)
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    shown = [page.all(tag)[-1].text for tag in ("h2", "td", "summary")] + [page.all("img")[0].attributes["alt"] or ""]
    assert [_visible(line)] * 4 == [_visible(words) for words in shown]
    assert all(link.parents[1].tag != "main" for link in page.all("a"))


def _visible(text: str) -> str:
    """Return the characters that no rule for blanks can take away."""
    return "".join(char for char in text if char.isprintable() and not char.isspace())
