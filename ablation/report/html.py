"""Turns report.md into one HTML page with the figures inside: it runs no script and loads nothing."""

import html
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from ablation.analysis.answer_records import Interplay
from ablation.output import plain
from ablation.report.marks import CROSSOVER, INTERPLAY, MARKS
from ablation.report.prose.verdicts import DIFFERS

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_TEMPLATES = Path(__file__).parent / "templates"
_ANSWERS, _VERDICT_COLUMN = "Answers", "verdict"
_NOTHING = Markup()
_FRAME_IDS = ("contents", "report")
_PNG, _SVG = b"\x89PNG\r\n\x1a\n", b"<svg"
_PLAIN = " ;:,'=()/.-+*!?@[]$"
"""What an SVG file's address may have as it is, beside letters and digits."""

# Browsers read a backslash as a slash, and a leading slash leaves the report's folder.
_LINK = re.compile(r"https?://[^\s\\]+|#\S*|[^\s:\\/?#][^\s:\\]*", re.IGNORECASE)
_BREAK = re.compile(r"(?<=[,=./_])(?=[^\W\d])")
_SUMMARY = re.compile(r"<details><summary>(.*)</summary>")
_DETAILS_END = "</details>"

_CLASSES: Mapping[str, str] = {
    **{verdict.value: mark.name for verdict, mark in MARKS.items() if mark is not INTERPLAY},
    **{interplay.value: INTERPLAY.name for interplay in Interplay},
    DIFFERS: CROSSOVER.name,
}
"""The class of what a cell says."""
_CELL = re.compile(rf"({'|'.join(map(re.escape, sorted(_CLASSES, key=len, reverse=True)))})(?=$|[,;(]| \(| when )")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heading:
    """A line of the table of contents; levels are HTML's, 2 or 3."""

    level: int
    text: str
    id: str


def html_document(markdown: str, *, title: str, pictures: Mapping[str, bytes], answers: Markup = _NOTHING) -> str:
    """Return a report's Markdown as a page that stands alone; equal arguments give equal text.

    `pictures` holds PNG or SVG files by their paths as the Markdown writes them. An image that is not among them is
    replaced by its alternative text. HTML in the Markdown is shown as text, but for the lines
    `<details><summary>…</summary>` and `</details>`, each between empty lines. Links lead to http(s), names beside
    the report, or into the page. `answers` is HTML that takes the place of what the section Answers has.

    Raises ValueError for a picture that is neither PNG nor SVG.
    """
    parser = _parser()
    tokens = parser.parse(plain(markdown))
    headings = _name_headings(tokens)
    _mark_tables(tokens)
    sources = {parser.normalizeLink(path): _data_uri(path, picture) for path, picture in pictures.items()}
    _place_pictures(tokens, sources)
    body = parser.renderer.render(list(_sections(_blocks(tokens), answers)), parser.options, {})
    return _framed(body, title=plain(title), headings=headings)


def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False, "xhtmlOut": False}).enable(["table", "strikethrough"])
    parser.validateLink = lambda url: _LINK.fullmatch(url) is not None  # type: ignore[method-assign]
    return parser


def _framed(body: str, *, title: str, headings: Sequence[_Heading]) -> str:
    style = (_TEMPLATES / "report.css").read_text(encoding="utf-8") + _mark_styles()
    return page_template("report.html.jinja").render(
        title=title,
        headings=headings,
        style=Markup(style),  # noqa: S704 -- a file of this package
        body=Markup(body),  # noqa: S704 -- the renderer has escaped every text and attribute
    )


def _mark_styles() -> str:
    """Return the colour and the shape of each verdict's class."""
    marks = {mark.name: mark for mark in (*MARKS.values(), CROSSOVER)}
    return "".join(
        f'.{name} {{ --verdict: {mark.colour}; --shape: "{mark.shape}"; }}\n' for name, mark in marks.items()
    )


def page_template(name: str) -> Template:
    """Return a template of this package that escapes every text as HTML."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = breakable
    return environment


def breakable(text: str) -> Markup:
    """Return text as HTML whose lines may end behind what joins the words of a long name: `depth=2,`, `warm_up_`."""
    return Markup("<wbr>").join(_BREAK.split(text))


def _data_uri(path: str, picture: bytes) -> str:
    if picture.startswith(_PNG):
        return f"data:image/png;base64,{b64encode(picture).decode('ascii')}"
    if _SVG in picture[:1000]:  # as text it is a quarter smaller than in base64
        return "data:image/svg+xml," + quote(picture.replace(b">\n<", b"><"), safe=_PLAIN)
    raise ValueError(f"{path} is neither a PNG nor an SVG file")


def _element(tag: str, inside: Iterable["Token"], attributes: Mapping[str, str] | None = None) -> Iterator["Token"]:
    """Yield an element's tokens; the renderer escapes its attributes."""
    from markdown_it.token import Token

    yield Token(f"{tag}_open", tag, 1, attrs=dict(attributes or {}), block=tag not in ("span", "summary"))
    yield from inside
    yield Token(f"{tag}_close", tag, -1, block=tag != "span")


def _text_token(text: str) -> "Token":
    from markdown_it.token import Token

    return Token("text", "", 0, content=text)


def _markup_token(markup: Markup) -> "Token":
    from markdown_it.token import Token

    return Token("html_block", "", 0, content=markup)


def _text(children: Iterable["Token"] | None) -> str:
    return "".join(" " if child.type == "softbreak" else child.content for child in children or ())


def _name_headings(tokens: Sequence["Token"]) -> list[_Heading]:
    """Give every heading an id made of its text, and return those that the table of contents lists."""
    headings, taken = [], set(_FRAME_IDS)
    for token, inside in pairwise(tokens):
        if token.type == "heading_open":
            text = _text(inside.children)
            name = _free_name(re.sub(r"[^\w]+", "-", text.casefold()).strip("-") or "section", taken)
            taken.add(name)
            token.attrs["id"] = name
            if token.tag in ("h2", "h3"):
                headings.append(_Heading(level=int(token.tag[1]), text=text, id=name))
    return headings


def _free_name(name: str, taken: set[str]) -> str:
    number = 2
    free = name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free


def _mark_tables(tokens: Sequence["Token"]) -> None:
    """Turn alignments into classes and first cells into row headings, and put badges on verdicts."""
    heads: list[str] = []
    column = 0
    for token, inside in pairwise(tokens):
        if token.type == "table_open":
            heads = []
        elif token.type == "tr_open":
            column = 0
        elif token.type == "th_open":
            heads.append(_text(inside.children).casefold())
            _mark_cell(token, inside, scope="col")
        elif token.type == "td_open":
            _mark_cell(token, inside, scope="" if column else "row")
            if heads[column].startswith(_VERDICT_COLUMN):
                inside.children = list(_with_badge(inside.children or []))
            column += 1
        elif token.type == "td_close" and column == 1:
            token.tag = "th"


def _mark_cell(token: "Token", inside: "Token", *, scope: str) -> None:
    alignment = str(token.attrs.pop("style", "")).removeprefix("text-align:")
    if alignment in ("right", "center"):
        token.attrs["class"] = alignment
    if scope:
        token.tag = "th"
        token.attrs["scope"] = scope
    inside.children = [part for child in inside.children or () for part in _breakable(child)]


def _breakable(token: "Token") -> Iterator["Token"]:
    """Yield a text in parts between which a line may end: `depth=2,` and `normalization=batch`."""
    from markdown_it.token import Token

    parts = _BREAK.split(token.content) if token.type == "text" else []
    if len(parts) < 2:
        yield token
        return
    for index, part in enumerate(parts):
        if index:
            yield Token("wbr", "wbr", 0)
        yield _text_token(part)


def _with_badge(children: Sequence["Token"]) -> Iterator["Token"]:
    begins = _CELL.match(children[0].content) if children and children[0].type == "text" else None
    if begins is None:
        yield from children
        return
    verdict, rest = begins.group(), children[0].content[begins.end() :]
    yield from _element("span", [_text_token(verdict)], {"class": f"badge {_CLASSES[verdict]}"})
    yield _text_token(rest)
    yield from children[1:]


def _place_pictures(tokens: Sequence["Token"], sources: Mapping[str, str]) -> None:
    for token in tokens:
        if token.children:
            token.children = [placed for child in token.children for placed in _placed(child, sources)]


def _placed(token: "Token", sources: Mapping[str, str]) -> Iterator["Token"]:
    if token.type != "image":
        yield token
    elif (source := sources.get(str(token.attrs["src"]))) is not None:
        token.attrs["src"] = source
        yield token
    else:
        yield from _element("span", [_text_token(token.content)], {"class": "absent"})


def _blocks(tokens: Iterable["Token"]) -> Iterator[list["Token"]]:
    """Yield the tokens of each outermost block."""
    block: list[Token] = []
    for token in tokens:
        block.append(token)
        if token.level == 0 and token.nesting <= 0:
            yield block
            block = []


def _sections(blocks: Iterable[list["Token"]], answers: Markup) -> Iterator["Token"]:
    """Yield the page's tokens with a section around each second-level heading and what follows it."""
    section: list[list[Token]] = []
    for block in blocks:
        if block[0].tag in ("h1", "h2"):
            yield from _section(section, answers)
            section = []
        section.append(block)
    yield from _section(section, answers)


def _section(blocks: list[list["Token"]], answers: Markup) -> Iterator["Token"]:
    if not blocks or blocks[0][0].tag != "h2":
        yield from _contents(blocks, labelled="")
        return
    heading, *rest = blocks
    name = str(heading[0].attrs["id"])
    if answers and _text(heading[1].children) == _ANSWERS:
        inside = [*heading, _markup_token(answers)]
        yield from _element("section", inside, {"aria-labelledby": name, "class": "answers"})
        return
    summary, end = _folded_parts(rest).get(0, ("", -1))
    if 0 < end == len(rest) - 1:
        yield from _folded_section(heading, summary, rest[1:end])
        return
    yield from _element("section", _contents(blocks, labelled=name), {"aria-labelledby": name})


def _folded_section(heading: list["Token"], hint: str, inside: Sequence[list["Token"]]) -> Iterator["Token"]:
    """Yield a section that is folded whole, its heading in the summary.

    A link opens the fold where its target is inside: the id moves there, and the heading gets one no heading can have.
    """
    name = str(heading[0].attrs["id"])
    title = f"{name}:title"
    heading[0].attrs["id"] = title
    hinted = _element("span", [_text_token(hint)], {"class": "hint"})
    summary = _element("summary", [*heading, *hinted])
    body = _element("div", _contents(inside, labelled=title), {"id": name, "class": "folded"})
    yield from _element("section", _element("details", [*summary, *body]), {"aria-labelledby": title})


def _contents(blocks: Sequence[list["Token"]], *, labelled: str) -> Iterator["Token"]:
    """Yield a section's tokens: pictures as figures, marked parts folded, wide tables in boxes that scroll."""
    folded = _folded_parts(blocks)
    index = 0
    while index < len(blocks):
        block, follower = blocks[index], blocks[index + 1] if index + 1 < len(blocks) else []
        if index in folded:
            summary, end = folded[index]
            inside = _contents(blocks[index + 1 : end], labelled=labelled)
            yield from _element("details", [*_element("summary", [_text_token(summary)]), *inside])
            index = end
        elif _is_picture(block):
            caption = follower if _is_caption(follower) else []
            yield from _element("figure", [*(block[1].children or ()), *_caption(caption)])
            index += len(caption) > 0
        else:
            yield from _boxed(block, labelled)
        index += 1


def _folded_parts(blocks: Sequence[list["Token"]]) -> dict[int, tuple[str, int]]:
    """Return the summary and the end of each folded part by its beginning; a line without its partner stays text."""
    folded: dict[int, tuple[str, int]] = {}
    open_parts: list[tuple[int, str]] = []
    for index, block in enumerate(blocks):
        line = _line(block)
        if found := _SUMMARY.fullmatch(line):
            open_parts.append((index, html.unescape(found.group(1))))
        elif line == _DETAILS_END and open_parts:
            begin, summary = open_parts.pop()
            folded[begin] = (summary, index)
    return folded


def _line(block: Sequence["Token"]) -> str:
    """Return a paragraph as the Markdown writes it, or nothing of another block."""
    return block[1].content if block and block[0].type == "paragraph_open" else ""


def _is_picture(block: Sequence["Token"]) -> bool:
    return bool(_line(block)) and [child.type for child in block[1].children or ()] == ["image"]


def _is_caption(block: Sequence["Token"]) -> bool:
    """Tell whether a block is one paragraph of text that does not introduce what follows it."""
    line = _line(block)
    if not line or line.endswith(":") or line == _DETAILS_END or _SUMMARY.fullmatch(line):
        return False
    return all(child.type != "image" for child in block[1].children or ())


def _caption(paragraph: Sequence["Token"]) -> Iterator["Token"]:
    if paragraph:
        yield from _element("figcaption", paragraph[1:-1])


def _boxed(block: Iterable["Token"], labelled: str) -> Iterator["Token"]:
    """Yield a block's tokens with its tables in boxes that can be scrolled by keyboard too."""
    name = {"aria-labelledby": labelled} if labelled else {"aria-label": "table"}
    for token in block:
        if token.type == "table_open":
            opening, closing = _element("div", [], {"class": "table", "role": "region", "tabindex": "0"} | name)
            yield opening
        yield token
        if token.type == "table_close":
            yield closing
