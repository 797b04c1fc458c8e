"""Takes out of texts what steers a terminal: escape sequences, and marks that turn the direction of writing."""

import json
import unicodedata

_INVISIBLE = ("Cc", "Cf", "Cs")


def plain(text: str) -> str:
    """Return text without control and bidirectional characters, fit for a terminal; line ends and tabs stay."""
    return "".join(" " if _steers(char) and char != "\t" else char for char in text)


def last_line(text: str | None, *, longest: int = 300) -> str:
    """Return the last line of a text that has something on it: of a traceback, the error; empty where there is none."""
    lines = [line for line in plain(text or "").splitlines() if line.strip()]
    line = lines[-1].strip() if lines else ""
    return line if len(line) <= longest else f"{line[:longest]}…"


def plain_json(text: str) -> str:
    """Return the same JSON with such characters escaped; it must have no tabs outside of its strings."""
    return "".join(json.dumps(char)[1:-1] if _steers(char) else char for char in text)


def _steers(char: str) -> bool:
    return char != "\n" and unicodedata.category(char) in _INVISIBLE
