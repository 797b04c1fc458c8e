"""Runs a study on nodes of which some are killed, asked to end and suspended, while others come, all by chance.

The story is `NodesChaos.run`: two nodes are there and the study is at work; every second or two one thing happens; then
nothing more does, and the same command is run until it is done. The seed fixes what is chosen of what can happen, not
how far a process is then.
"""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable

from cluster_bed import TRACEBACK, Bed
from cluster_study import Alone
from engine import Node
from targets import Cause, send

BETWEEN_S = (0.5, 2.0)
SUSPENDED_S = (0.5, 3.0)
AWAY_S = (0.0, 2.0)
NODES = 2
COMES = 0.05
"""The chance that a node that is missing is started with a tick: about a second until then."""
TICK_S = 0.05
LONGEST_S = 120.0
ENDS_WITHIN_S = 10.0
FAULTS = {
    "training killed": 2,
    "node killed": 3,
    "node asked to end": 3,
    "node suspended": 2,
    "scheduler killed": 1,
    "command killed": 1,
    "command asked to end": 1,
}
"""What may happen, and how often in a bag of it."""
ALLOWED: dict[Cause, tuple[int, ...]] = {
    "by itself": (0,),
    "killed": (0, 128 + signal.SIGKILL),
    "asked to end": (0, 128 + signal.SIGTERM),
}


class NodesChaos:
    """A bed whose study is disturbed for some seconds; `problems` says what should not have been."""

    def __init__(self, bed: Bed, *, seed: int, duration_s: float) -> None:
        self._bed, self._duration_s, self.seed = bed, duration_s, seed
        self._random = random.Random(seed)
        self._due: list[tuple[float, Callable[[], object]]] = []
        self._begun, self._named, self._is_over = time.monotonic(), 0, False
        self.happened: Counter[str] = Counter()
        self.events: list[str] = []
        self.problems: list[str] = []

    def run(self, alone: Alone) -> list[str]:
        """Return what went wrong."""
        self._bed.start(*self._names(NODES))
        self._bed.await_epochs()
        end = time.monotonic() + self._duration_s
        while not self._is_over and time.monotonic() < end:
            self._let_something_happen()
            self._wait(self._random.uniform(*BETWEEN_S))
        self._let_it_end()
        return self.problems + self._bed.problems(alone)

    def story(self) -> str:
        nodes = [f"-- {node.folder.name}\n{node.log}" for node in self._bed.cluster.nodes]
        return "\n".join([f"seed {self.seed}", *self.events, *self.problems, *nodes])

    def summary(self) -> str:
        return ", ".join(f"{count} × {kind}" for kind, count in sorted(self.happened.items()))

    def _let_something_happen(self) -> None:
        """Do the first thing that can be done now, of all in an order by chance."""
        bag = [kind for kind, times in FAULTS.items() for _ in range(times)]
        self._random.shuffle(bag)
        for kind in bag:
            if self._try(kind):
                self.happened[kind] += 1
                self._note(kind)
                return

    def _try(self, kind: str) -> bool:
        """Do something; say whether there was anything to do it to."""
        nodes = [node for node in self._bed.cluster.nodes if node.is_up]
        match kind:
            case "command killed":
                return self._end_command("killed", signal.SIGKILL)
            case "command asked to end":
                return self._end_command("asked to end", signal.SIGTERM)
            case "scheduler killed":
                return self._kill_scheduler()
        return bool(nodes) and self._disturb(kind, self._random.choice(nodes))

    def _disturb(self, kind: str, node: Node) -> bool:
        if kind == "training killed":
            trainings = node.trainings()
            return bool(trainings) and send(self._random.choice(trainings), signal.SIGKILL)
        if kind == "node suspended":
            node.suspend()
            self._later(SUSPENDED_S, node.resume)
            return True
        (node.kill if kind == "node killed" else node.ask_to_end)()
        return True

    def _kill_scheduler(self) -> bool:
        """Have the scheduler go, and its workers with it."""
        if not self._bed.cluster.has_scheduler:
            return False
        self._bed.cluster.kill_scheduler()
        self._later(AWAY_S, self._bed.cluster.start_scheduler)
        return True

    def _end_command(self, cause: Cause, number: int) -> bool:
        if not self._bed.epochs():
            return False  # it has not come to work
        begun = time.monotonic()
        self._bed.command.send(number)
        self._judge(cause)
        if (seconds := time.monotonic() - begun) > ENDS_WITHIN_S:
            self.problems.append(f"the command ended {seconds:.1f} s after it was asked to")
        return True

    def _let_it_end(self) -> None:
        """Bring everything back, and run the same command until it is done."""
        self._note("nothing more happens")
        end = time.monotonic() + LONGEST_S
        while not self._is_over:
            self._tick()
            if time.monotonic() > end:
                self.problems.append(f"the study was not done {LONGEST_S:.0f} s after all was over")
                return
            time.sleep(TICK_S)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._is_over and time.monotonic() < end:
            self._tick()
            time.sleep(TICK_S)

    def _tick(self) -> None:
        """Do what is due, start a node where one is missing, and see whether the command has ended."""
        now = time.monotonic()
        due = [action for at, action in self._due if at <= now]
        self._due = [(at, action) for at, action in self._due if at > now]
        for action in due:
            action()
        cluster = self._bed.cluster
        missing = sum(node.is_up for node in cluster.nodes) < NODES
        if missing and cluster.has_scheduler and self._random.random() < COMES:
            self._note(f"{cluster.add(*self._names(1)).folder.name} comes")
        if self._bed.command.has_ended:
            self._judge("by itself")

    def _judge(self, cause: Cause) -> None:
        """See how a process of the command ended, and start the next one unless the study is done."""
        ending = self._bed.command.ending(cause)
        self._note(f"the command ended {cause} with status {ending.status}")
        if ending.status not in ALLOWED[cause] or TRACEBACK in ending.output:
            self.problems.append(f"ended {cause} with status {ending.status}: {ending.output}")
        self._is_over = ending.status == 0 or bool(self.problems)
        if not self._is_over:
            self._bed.command.start()

    def _names(self, count: int) -> list[str]:
        self._named += count
        return [f"n{number}" for number in range(self._named - count, self._named)]

    def _later(self, within_s: tuple[float, float], action: Callable[[], object]) -> None:
        self._due.append((time.monotonic() + self._random.uniform(*within_s), action))

    def _note(self, text: str) -> None:
        self.events.append(f"{time.monotonic() - self._begun:6.1f} s  {text}")
