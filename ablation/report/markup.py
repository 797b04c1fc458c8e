"""Renders templates as Markdown; whatever an expression prints is escaped unless it is marked as Markdown already."""

import functools
import html
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ablation.output import plain
from ablation.report.table import Table

_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
_LINE_START = re.compile(r"^(?:#+(?=\s|$)|[+\-](?=\s|$)|[\-=]+$|\d+(?=[.)](?:\s|$)))")
_LINE_END = re.compile(r"(?<= )#+$")  # would close a heading
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MOST_LINES = 60


def render(template: str, **values: Any) -> str:
    """Return a template of this package as Markdown."""
    return _environment().get_template(template).render(values)


@functools.cache
def _environment() -> Environment:
    """Return what renders the templates, which are compiled once."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        finalize=_escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": code, "fenced": fenced, "html": html_text, "markup": Markup, "table": table_text}
    return environment


def escaped(text: str) -> str:
    """Return text on one line in which Markdown and HTML see nothing but text, in a table's cell too."""
    line = " ".join(plain(text).split())
    line = _SPECIAL.sub(lambda match: f"\\{match.group()}", line)
    line = _LINE_START.sub(lambda match: _escaped_start(match.group()), line)
    line = _LINE_END.sub(lambda match: f"\\{match.group()}", line)
    line = re.sub("[&<>]", lambda match: _ENTITIES[match.group()], line)
    # GitHub makes links of bare addresses, unless their colon or dot is an entity.
    return re.sub(r"(?i)\b(https?|ftp):(?=//)", r"\1&#58;", re.sub(r"(?i)\bwww\.", "www&#46;", line))


def code(text: str) -> Markup:
    """Return text as a code span."""
    line = " ".join(plain(text).split())
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return Markup(f"{ticks}{pad}{line}{pad}{ticks}")  # noqa: S704 -- code spans hold no HTML


def html_text(text: str) -> Markup:
    """Return text for the inside of an HTML tag, where Markdown's escapes don't count."""
    return Markup(html.escape(" ".join(plain(text).split())))  # noqa: S704 -- this is the escaping


def table_text(table: Table) -> Markup:
    """Return a table as GitHub renders it."""
    rows = [map(escaped, table.head), table.alignments, *(map(escaped, row) for row in table.rows)]
    return Markup("\n".join(f"| {' | '.join(cells)} |" for cells in rows))  # noqa: S704 -- every cell is escaped


def fenced(text: str, language: str = "text") -> Markup:
    """Return text as a code block, its last 60 lines where there are more."""
    lines = plain(text).splitlines()
    kept = lines if len(lines) <= _MOST_LINES else [f"({len(lines) - _MOST_LINES} lines before)", *lines[-_MOST_LINES:]]
    ticks = "`" * max(3, _longest_run(text) + 1)
    return Markup("\n".join([f"{ticks}{language}", *kept, ticks]))  # noqa: S704 -- code blocks hold no HTML


def _escaped(value: Any) -> Any:
    return value if isinstance(value, Markup) else Markup(escaped(str(value)))  # noqa: S704 -- this is the escaping


def _escaped_start(mark: str) -> str:
    return f"{mark}\\" if mark.isdigit() else f"\\{mark}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
