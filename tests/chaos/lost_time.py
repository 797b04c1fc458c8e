"""Measures what a killed worker costs: how long until its run has done as many epochs again as at the kill.

That is from the moment of the kill until `metrics.jsonl` of the run, written anew since, has as many lines as it had
then, whatever else happens in between. Most of it is waiting for the runs that are queued before; so the time from when
another worker has taken the run over is measured too. Which run a worker had the command says as it finds it dead.
"""

import json
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablation.storage.run_folder import EPOCHS, RESULT, STARTED

DIED = re.compile(r"(\S+): its worker died")
SAID_WITHIN_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What a kill cost: in all, and from when the run was taken over; `epochs` had been done at the kill."""

    epochs: int
    seconds: float
    again_seconds: float


@dataclass(slots=True, kw_only=True)
class _Kill:
    at: float
    said_before: int
    before: Mapping[str, tuple[str, int]]
    """By identity, the owner of each run's folder and its epochs."""
    identity: str | None = None
    taken_over: float | None = None


class LostTime:
    """Watches the run folders of a study, whose runs have these names and identities; `look` is called often."""

    def __init__(self, state: Path, study: str, identities: Mapping[str, str]) -> None:
        self._begun, self._kept = state / "begun" / study, state / "runs"
        self._identities = identities
        self._open: list[_Kill] = []
        self._last_kill = 0.0
        self.lost: list[Lost] = []
        self.kills = 0

    def note_kill(self, output: str) -> None:
        """Begin to measure; `output` is what the command has said so far."""
        self.kills += 1
        self._last_kill = time.time()
        folders = [folder for folder in self._begun.glob("*") if not (folder / RESULT).exists()]
        before = {folder.name: (_owner(folder), _epochs(folder)) for folder in folders}
        said = len(DIED.findall(output)) + sum(kill.identity is None for kill in self._open)
        self._open.append(_Kill(at=self._last_kill, said_before=said, before=before))

    def note_end(self) -> None:
        """The command has ended: what it has not said by now it never will."""
        self._open = [kill for kill in self._open if kill.identity is not None]

    def has_got_on(self) -> bool:
        """Whether any run under way has done an epoch since the last kill."""
        return any(_written(folder) > self._last_kill for folder in self._begun.glob("*"))

    def look(self, output: str) -> None:
        self._open = [kill for kill in self._open if self._is_open(kill, output)]

    def _is_open(self, kill: _Kill, output: str) -> bool:
        if kill.identity is None:
            said = DIED.findall(output)[kill.said_before :]
            kill.identity = self._identities.get(said[0]) if said else None
            return kill.identity in kill.before or (not said and time.time() - kill.at < SAID_WITHIN_S)
        owner, epochs = kill.before[kill.identity]
        begun = self._begun / kill.identity
        folder, now = begun if begun.exists() else self._kept / kill.identity, time.time()
        if kill.taken_over is None and _owner(folder) not in ("", owner):
            kill.taken_over = now
        if kill.taken_over is None or (epochs and (_epochs(folder) < epochs or _written(folder) <= kill.at)):
            return True
        self.lost.append(Lost(epochs=epochs, seconds=now - kill.at, again_seconds=now - kill.taken_over))
        return False


def summary(lost: Sequence[Lost], *, kills: int) -> str:
    """Say what the kills cost whose run had done an epoch."""
    costly = [one for one in lost if one.epochs]
    if not costly:
        return f"killed workers: {kills}, none measured of which a run had done an epoch"
    total = statistics.median(one.seconds for one in costly)
    again = statistics.median(one.again_seconds for one in costly)
    longest = max(one.again_seconds for one in costly)
    return (
        f"killed workers: {kills}, {len(costly)} measured of which a run had done an epoch: until it had as many again "
        f"median {total:.1f} s, of that from when it was taken over {again:.1f} s, at most {longest:.1f} s"
    )


def _owner(folder: Path) -> str:
    try:
        return str(json.loads((folder / STARTED).read_text()).get("owner", ""))
    except (OSError, ValueError):
        return ""


def _epochs(folder: Path) -> int:
    try:
        return (folder / EPOCHS).read_bytes().count(b"\n")
    except OSError:
        return 0


def _written(folder: Path) -> float:
    try:
        return (folder / EPOCHS).stat().st_mtime
    except OSError:
        return 0.0
