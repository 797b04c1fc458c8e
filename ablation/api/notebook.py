"""Shows how a study goes below a notebook's cell, in one output that is written over, and figures as pictures."""

from __future__ import annotations

import html
import io
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from ablation.api.live_view import Room

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_NOTES = 10
FIGURE_DPI = 110


class NotebookView:
    """One output of a notebook: the last events, and below them where the study stands."""

    room = Room(columns=120, rows=50)

    def __init__(self, display: Any) -> None:
        self._notes: deque[str] = deque(maxlen=MOST_NOTES)
        self._handle = display(_bundle(""), raw=True, display_id=True)

    def note(self, text: str) -> None:
        self._notes.append(text)

    def show(self, view: str) -> None:
        self._handle.update(_bundle("\n".join([*self._notes, view])), raw=True)


def notebook_view() -> NotebookView | None:
    """Return a view below the cell that runs, None where this process is no notebook's kernel."""
    return NotebookView(sys.modules["IPython"].display.display) if _shell() is not None else None


def shown(figure: Figure) -> Figure:
    """Return a figure that a notebook shows as a picture, also where pyplot, which sees to that, is not imported."""
    shell = _shell()
    if shell is not None:
        formatter = shell.display_formatter.formatters["image/png"]
        if type(figure) not in formatter.type_printers:
            formatter.for_type(type(figure), _png)
    return figure


def _shell() -> Any:
    """Return IPython's shell where this process is a notebook's kernel, else None."""
    interactive: Any = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    return shell if getattr(shell, "kernel", None) is not None else None


def _png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=FIGURE_DPI)
    return picture.getvalue()


def _bundle(text: str) -> dict[str, str]:
    return {"text/plain": text, "text/html": f"<pre>{html.escape(text)}</pre>"}
