"""Names and texts that every tracker and file system takes: of metrics, of studies, of runs."""

import re

_FILE_NAME = re.compile(r"(?!\.{1,2}$)[^/\\\x00-\x1f\x7f]{1,200}")
_IDENTITY = re.compile(r"[0-9a-f]{32}")
_METRIC_NAME = re.compile(r"[/\w.\- :]{1,250}")
LONGEST_SHOWN = 60
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def is_recordable_name(name: str) -> bool:
    """Whether every tracker takes a metric or a parameter of that name.

    That is MLflow's rule, no looser: letters of any script, digits and ` _-./:`, at most 250 characters; as a path it
    leads to itself, and not up or to the root.
    """
    leads_to_itself = all(part not in ("", ".", "..") for part in name.split("/"))
    return bool(_METRIC_NAME.fullmatch(name)) and leads_to_itself and not name.startswith("..")


def is_study_name(name: str) -> bool:
    """Whether a study may have that name, also one of an earlier version: as a folder's name it leads nowhere else."""
    return _FILE_NAME.fullmatch(name) is not None


def is_identity(text: str) -> bool:
    """Whether a text may be a run's identity, which is a folder's name too."""
    return _IDENTITY.fullmatch(text) is not None


def unrecordable_name_text(name: object) -> str:
    """Say that a metric of that name is not recorded."""
    text = ascii(name)
    shown = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
    return f"metric {shown} is left out: a name has 1 to 250 letters, digits and ` _-./:`, and is no path elsewhere"


def recordable_text(text: str) -> str:
    """Return a text as every tracker takes it: NUL and halves of surrogate pairs as backslash escapes."""
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).replace("\0", "\\x00")
