"""Runs a study whose processes are killed at operations drawn by chance, again and again, and then to its end.

The story is `Killed.run`. Where processes can be killed is learned from an undisturbed study of the same kind, and from
what the killed ones did. A study can be repeated from the kills it was given: its processes' threads may then come to
an operation in another order.
"""

import json
import random
import signal
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from kill_checks import Left, problems_after_kills, temporary_files_of_others
from kill_injection import SCHEMA, Death, Kill, Operation, Role, Sites, kills_in, operations_in
from kill_starting import Command
from kill_studies import Kind, Place, Reading, Shared
from targets import processes_of, send

LONGEST_S = 240.0
TRIES = 3
"""Starts for each kill that is wanted: not every one comes to the operation that was drawn for it."""
READ = 0.25
"""Of the starts after which the study is read."""
MAKING = 0.7
"""Of the studies with a new database those that are killed while it is made."""
READING: tuple[Reading, ...] = ("status", "summarize")
TRACEBACK = "Traceback (most recent call last)"
Starts = list[list[Kill]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended, which of its processes were killed, and all that it printed."""

    what: str
    status: int
    killed: tuple[Death, ...]
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calm:
    """What a kind of study comes to undisturbed, and where its processes can be killed, as far as is known."""

    place: Place
    left: Left
    sites: Sites


class Killed:
    """One study: `kills` are to happen to it, drawn by `chance`, or those of `starts`, one list per start."""

    def __init__(
        self,
        folder: Path,
        shared: Shared,
        *,
        calm: Calm,
        kills: int = 0,
        seed: int = 0,
        starts: Starts | None = None,
    ) -> None:
        self.kind = calm.place.kind
        self._place = Place.make(folder, self.kind, shared)
        self._calm, self._wanted, self._given = calm, kills, starts
        self._chance = random.Random(f"{seed} {self.kind}")
        self._operations: list[Operation] = []
        self._reached = Sites()
        self.starts: Starts = []
        self.ended: list[Ended] = []
        self.problems: list[str] = []
        self.notes: list[str] = []

    @property
    def deaths(self) -> list[Death]:
        return [death for one in self.ended for death in one.killed]

    def run(self) -> list[str]:
        """Return what went wrong."""
        try:
            for kills in self._given if self._given is not None else self._drawn():
                self._start(kills)
                self._read()
            self._start([])
            calm, place = self._calm.left, self._place
            self.problems += problems_after_kills(place, calm=calm, operations=self._operations)
            self.notes += temporary_files_of_others(place, calm=calm, operations=self._operations)
            self._judge(read(place, "summarize", number=0), allowed={0})
        finally:
            for process in processes_of(self._place.state):
                send(process, signal.SIGKILL)
        return self.problems

    def story(self, *, with_outputs: bool) -> str:
        lines = [f"{self.kind}; to repeat: --repeat '{to_json(self.kind, self.starts)}'"]
        for one in self.ended:
            lines += [
                f"-- {one.what}: status {one.status}",
                *(f"   killed: {death.role} at {death.site}, {death.lines}" for death in one.killed),
            ]
            lines += [one.output] if with_outputs or TRACEBACK in one.output else []
        return "\n".join([*lines, *self.problems, *(f"left by others: {note}" for note in self.notes)])

    def _drawn(self) -> Iterator[list[Kill]]:
        """Yield what happens at each start until there were kills enough, or something went wrong."""
        for _ in range(TRIES * self._wanted):
            if len(self.deaths) >= self._wanted or self.problems:
                return
            yield self._draw()

    def _draw(self) -> list[Kill]:
        """Draw the coordinator's death, one of a worker's or of the process that records, or both."""
        is_done, is_first = bool(self._reached), not self.starts
        sites = self._reached if is_done else self._calm.sites
        roles: list[list[Role]] = [["coordinator"]]
        if self.kind.executor == "processes" and not is_done:
            roles += [["worker"], ["worker", "coordinator"], ["uploads"], ["uploads", "coordinator"]]
        is_making = is_first and self.kind.name == "new" and self._chance.random() < MAKING
        drawn = [
            sites.draw(role, self._chance, is_first=is_first, within=SCHEMA if is_making else "")
            for role in self._chance.choice(roles)
        ]
        return [kill for kill in drawn if kill is not None]

    def _start(self, kills: list[Kill]) -> None:
        """Run the study's command and judge how it ended: it need not come to where it is to be killed."""
        self.starts.append(kills)
        ended, operations = watched(self._place, kills, number=len(self.starts))
        self._operations += operations
        self._calm.sites.add(operations)
        self._reached = Sites()
        if ended.status == 0:  # the next start is another of a study that is done
            self._reached.add(operations)
        is_killed = any(death.role == "coordinator" for death in ended.killed)
        self._judge(ended, allowed={-signal.SIGKILL} if is_killed else {0})

    def _read(self) -> None:
        """Ask for the study's state or its report, now and then, while nothing runs it."""
        if self._chance.random() < READ:
            number = len(self.starts)
            self._judge(read(self._place, self._chance.choice(READING), number=number), allowed={0, 1, 2})

    def _judge(self, ended: Ended, *, allowed: set[int]) -> None:
        self.ended.append(ended)
        number = len(self.ended)
        if TRACEBACK in ended.output:
            self.problems.append(f"traceback: command {number}, {ended.what}, printed one")
        if ended.status not in allowed:
            last = ended.output.strip().splitlines()[-3:]
            self.problems.append(
                f"status: command {number}, {ended.what}, ended with status {ended.status}: {' / '.join(last)}"
            )


def undisturbed(folder: Path, kind: Kind, shared: Shared, *, starts: int) -> Calm:
    """Run a study of a kind with nothing happening to it, more than once as later starts do other things."""
    place, sites = Place.make(folder, kind, shared), Sites()
    for number in range(1, starts + 1):
        ended, operations = watched(place, [], number=number)
        assert ended.status == 0, ended.output
        sites.add(operations)
    return Calm(place=place, left=Left.by(place), sites=sites)


def watched(place: Place, kills: list[Kill], *, number: int) -> tuple[Ended, list[Operation]]:
    """Run a study's command, killed there; return what it did too."""
    control = place.control / f"start-{number}"
    control.mkdir()
    ended = _ended(place, place.study_command(), place.ordered(kills, control), control)
    return ended, operations_in(control)


def read(place: Place, name: Reading, *, number: int) -> Ended:
    control = place.control / f"reading-{number}"
    control.mkdir()
    return _ended(place, place.reading_command(name), place.environment, control)


def to_json(kind: Kind, starts: Starts) -> str:
    return json.dumps([kind.name, kind.executor, [[asdict(kill) for kill in kills] for kills in starts if kills]])


def from_json(text: str) -> tuple[Kind, Starts]:
    name, executor, starts = json.loads(text)
    return Kind(name=name, executor=executor), [[Kill(**kill) for kill in kills] for kills in starts]


def _ended(place: Place, arguments: Sequence[str], environment: dict[str, str], control: Path) -> Ended:
    """Run a command to its end, or kill it after minutes; what it prints goes to a file, which no worker holds back."""
    output = control / "output.txt"
    command = Command(arguments=arguments, environment=environment, folder=place.folder, output=output)
    status = place.starter.status(command, limit_s=LONGEST_S)
    printed = output.read_text(errors="replace")
    return Ended(what=arguments[2], status=status, killed=kills_in(control), output=printed)
