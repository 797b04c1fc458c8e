"""Runs a study while its processes are killed, asked to end and suspended, its server gone and its databases locked.

The story is `Chaos.run`: the server starts, the command starts, the study comes to work; every few seconds one thing
happens that a seed has chosen; after that nothing more happens, and the same command is run until it is done. What must
hold then is in `checks`. The seed fixes what is chosen of what can happen at a moment, not how far a process is then.
"""

import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
from chaos_study import STUDY, Undisturbed, study_command
from checks import problems_at_the_end
from forking import Starter
from lost_time import LostTime
from targets import Ending, Server, processes_of, send

TICK_S = 0.05
BETWEEN_S = (2.0, 5.0)
SUSPENDED_S = (1.0, 3.0)
LOCKED_S = (1.0, 3.0)
SERVER_AWAY_S = (0.0, 8.0)
ENDS_WITHIN_S = 10.0
ENDED_STARTING = 0.1
TRIES = 3
LONGEST_S = 240.0
NO_MLFLOW = ("cannot use MLflow at", "MLflow does not answer")
"""What the command says where it ends with status 2 as MLflow is away."""


FAULTS = {
    "worker killed": 3,
    "worker asked to end": 2,
    "worker suspended": 2,
    "command killed": 1,
    "command asked to end": 1,
    "server killed": 1,
    "Optuna's database locked": 1,
    "MLflow's database locked": 1,
}
"""What may happen, and how often in a bag of it."""


class Chaos:
    """A study of twenty runs, and what happens to it; `problems` says what should not have.

    `calm` is what the study comes to where nothing happens; the server may have been started before. Asked to end, the
    command has `ends_within_s`: what it promises, or more on a machine that is busy with other things.
    """

    def __init__(
        self,
        folder: Path,
        data_cache: Path,
        starter: Starter,
        *,
        server: Server,
        seed: int,
        duration_s: float,
        calm: Undisturbed,
        ends_within_s: float = ENDS_WITHIN_S,
    ) -> None:
        self._ends_within_s = ends_within_s
        self.seed, self.duration_s, self._calm = seed, duration_s, calm
        self.events: list[str] = []
        self.endings: list[Ending] = []
        self.problems: list[str] = []
        self.happened: Counter[str] = Counter()
        self.state = folder / "state"
        self.lost_time = LostTime(self.state, STUDY, calm.identities)
        self._server = server
        self._command = study_command(folder, data_cache, starter, address=self._server.address, size=calm.size)
        self._random = random.Random(seed)
        self._begun = time.monotonic()
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._bag: list[str] = []
        self._is_calm, self._is_excused, self._is_over = False, False, False

    def run(self) -> list[str]:
        """Return what went wrong."""
        try:
            if not self._server.is_started:
                self._server.start()
            self._wait_for(lambda: self._server.is_up, "the server is up", every_s=0.5)
            self._start()
            self._wait_for(self.lost_time.has_got_on, "the study is at work")
            self._make_trouble()
            self._let_it_end()
            self.problems += problems_at_the_end(
                STUDY, expected=self._calm.trainings, address=self._server.address, state=self.state
            )
        finally:
            self._clear_up()
        return self.problems

    def story(self, *, with_outputs: bool) -> str:
        counts = ", ".join(f"{count} × {kind}" for kind, count in self.happened.items())
        endings = [
            f"-- start {number}: ended {ending.cause}, status {ending.status}" + f"\n{ending.output}" * with_outputs
            for number, ending in enumerate(self.endings, start=1)
        ]
        return "\n".join([f"seed {self.seed}: {counts}", *self.events, *endings, *self.problems])

    def _make_trouble(self) -> None:
        """Let something happen every few seconds, until the time is over or the study done."""
        end = time.monotonic() + self.duration_s
        while not self._is_over and time.monotonic() < end:
            self._wait(self._random.uniform(*BETWEEN_S))
            if not self._is_over:
                self._let_something_happen()

    def _let_something_happen(self) -> None:
        """Take the first thing that can happen now out of a shuffled bag; when that is empty, it is filled again."""
        if not self._bag:
            self._bag = [kind for kind, times in FAULTS.items() for _ in range(times)]
            self._random.shuffle(self._bag)
        for position, kind in enumerate(self._bag):
            what = self._try(kind)
            if what is not None:
                del self._bag[position]
                self.happened[kind] += 1
                self._note(f"{kind}{what}")
                return

    def _try(self, kind: str) -> str | None:
        """Do something; return what there is to say of it, None where there is nothing to do it to."""
        match kind:
            case "worker killed":
                return self._kill_worker()
            case "worker asked to end":
                return self._ask_worker_to_end()
            case "worker suspended":
                return self._suspend_worker()
            case "command killed":
                return self._kill_command() if self._is_worth_ending() else None
            case "command asked to end":
                return self._ask_command_to_end() if self._is_worth_ending() else None
            case "server killed":
                return self._kill_server()
            case "Optuna's database locked":
                return self._lock(self.state / "optuna.db")
        return self._lock(self._server.database)

    def _is_worth_ending(self) -> bool:
        """Whether the command is at work; seldom too while it starts, or it would never come to work."""
        return bool(self._command.workers()) or self._random.random() < ENDED_STARTING

    def _kill_worker(self) -> str | None:
        """Kill a worker, unless nothing has been done since the last one: a run of which too many die has failed."""
        worker = self._any_worker() if self.lost_time.has_got_on() else None
        if worker is None or not send(worker, signal.SIGKILL):
            return None
        self.lost_time.note_kill(self._command.output)
        return f": {worker.pid}"

    def _ask_worker_to_end(self) -> str | None:
        worker = self._any_worker()
        return f": {worker.pid}" if worker is not None and send(worker, signal.SIGTERM) else None

    def _suspend_worker(self) -> str | None:
        worker = self._any_worker()
        if worker is None or not send(worker, signal.SIGSTOP):
            return None
        seconds = self._random.uniform(*SUSPENDED_S)
        self._later(seconds, lambda: self._note(f"worker goes on: {send(worker, signal.SIGCONT)}"))
        return f": {worker.pid} for {seconds:.1f} s"

    def _kill_command(self) -> str:
        self._command.send(signal.SIGKILL)
        self._end(self._command.ending("killed"))
        return ""

    def _ask_command_to_end(self) -> str:
        self._command.send(signal.SIGTERM)
        begun = time.monotonic()
        self._wait_for(lambda: self._command.has_ended, "the command has ended", is_watched=False)
        seconds = time.monotonic() - begun
        if seconds > self._ends_within_s:
            self.problems.append(f"the command ended {seconds:.1f} s after it was asked to")
        self._end(self._command.ending("asked to end", seconds))
        return f": it took {seconds:.1f} s"

    def _kill_server(self) -> str | None:
        if not self._server.is_started:
            return None
        self._server.kill()
        seconds = self._random.uniform(*SERVER_AWAY_S)
        self._later(seconds, self._server.start)
        return f" and started again after {seconds:.1f} s"

    def _lock(self, database: Path) -> str | None:
        if not database.exists():
            return None
        connection = sqlite3.connect(database, timeout=5.0, isolation_level=None)
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            connection.close()
            return None
        seconds = self._random.uniform(*LOCKED_S)
        self._later(seconds, connection.close)
        return f" for {seconds:.1f} s"

    def _any_worker(self) -> psutil.Process | None:
        workers = self._command.workers()
        return self._random.choice(workers) if workers else None

    def _let_it_end(self) -> None:
        """Bring everything back and run the same command until it is done."""
        self._wait_for(lambda: not self._due and self._server.is_up, "all is back", every_s=0.5)
        self._note("nothing more happens")
        self._is_calm = True
        starts, end = len(self.endings), time.monotonic() + LONGEST_S
        while not self._is_over and len(self.endings) < starts + TRIES:
            self._wait(TICK_S)
            if time.monotonic() > end:
                self.problems.append(f"the study did not end within {LONGEST_S:.0f} s after the last event")
                return
        if not self._is_over:
            self.problems.append(f"the command was run {TRIES} times after the last event, and the study is not done")

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            self._tick()
            if self._is_over or time.monotonic() >= end:
                return
            time.sleep(TICK_S)

    def _wait_for(
        self, holds: Callable[[], bool], what: str, *, every_s: float = TICK_S, is_watched: bool = True
    ) -> None:
        end = time.monotonic() + LONGEST_S
        while not holds():
            assert time.monotonic() < end, f"waited {LONGEST_S:.0f} s in vain until {what}"
            self._tick(is_watched=is_watched)
            time.sleep(every_s)

    def _tick(self, *, is_watched: bool = True) -> None:
        now = time.monotonic()
        for action in [action for due, action in self._due if due <= now]:
            action()
        self._due = [(due, action) for due, action in self._due if due > now]
        self.lost_time.look(self._command.output)
        if is_watched and self._command.has_ended and not self._is_over:
            self._end(self._command.ending("by itself"))

    def _end(self, ending: Ending) -> None:
        """Judge how a process of the command ended, and start the next one unless the study is done."""
        self.lost_time.look(ending.output)
        self.lost_time.note_end()
        self.endings.append(ending)
        self._note(f"start {len(self.endings)} ended {ending.cause} with status {ending.status}")
        self._is_over = ending.cause == "by itself" and ending.status == 0
        if (reason := _why_wrong(ending, is_excused=self._is_excused)) is not None:
            self.problems.append(f"start {len(self.endings)} {reason}")
        if not self._is_over:
            self._start()

    def _start(self) -> None:
        self._is_excused = not self._is_calm
        self._command.start()

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + seconds, action))

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._begun

    def _note(self, text: str) -> None:
        self.events.append(f"{self._seconds:6.1f} s  {text}")

    def _clear_up(self) -> None:
        self._server.kill()
        for process in processes_of(self.state):
            send(process, signal.SIGKILL)


def _why_wrong(ending: Ending, *, is_excused: bool) -> str | None:
    """Say what was wrong with how a process ended, if anything: it may lack MLflow, and it may have been done first."""
    if "Traceback (most recent call last)" in ending.output:
        return "printed a traceback"
    lacks_mlflow = ending.status == 2 and any(words in ending.output for words in NO_MLFLOW)
    allowed = {"by itself": {0}, "killed": {0, 128 + signal.SIGKILL}, "asked to end": {0, 128 + signal.SIGTERM}}
    is_right = ending.status in allowed[ending.cause] or (is_excused and lacks_mlflow)
    return None if is_right else f"ended {ending.cause} with status {ending.status}"
