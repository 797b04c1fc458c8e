"""Shows how a study goes below a notebook's cell, in one output that is written over; without ipywidgets."""

from __future__ import annotations

import html
import io
import sys
from collections import deque
from typing import Any

from rich.console import Console, RenderableType

from ablation.output import plain

WIDTH = 120
MOST_NOTES = 10


class NotebookView:
    """One output of a notebook: the last events, and below them where the study stands."""

    def __init__(self, display: Any) -> None:
        self._notes: deque[str] = deque(maxlen=MOST_NOTES)
        self._handle = display(_bundle(""), raw=True, display_id=True)

    def note(self, text: str) -> None:
        self._notes.append(" ".join(plain(text).split()))

    def show(self, view: RenderableType) -> None:
        console = Console(file=io.StringIO(), width=WIDTH, force_jupyter=False, highlight=False, emoji=False)
        with console.capture() as capture:
            console.print(view)
        self._handle.update(_bundle("\n".join([*self._notes, capture.get()])), raw=True)


def notebook_view() -> NotebookView | None:
    """Return a view below the cell that runs, None where this process is no notebook's kernel."""
    interactive: Any = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    if getattr(shell, "kernel", None) is None:
        return None
    return NotebookView(interactive.display.display)


def _bundle(text: str) -> dict[str, str]:
    return {"text/plain": text, "text/html": f"<pre>{html.escape(text)}</pre>"}
