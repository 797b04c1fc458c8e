"""Runs the sides of a benchmark in turn, each in a process of its own, and takes ratios within each turn.

Alone in its process, a side gets no memory that another has made ready; in turn, what else the machine does meanwhile
touches all sides alike.
"""

import contextlib
import multiprocessing
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, Protocol

Rates = Iterator[float]
"""Each `next` runs one turn of a side and gives its rate: images, or operations, per second."""
Side = Callable[..., Rates]
"""Called with a case and `turns`, the number of turns that will be asked for."""
PRELOADED = ["benchmarks.loops", "benchmarks.loader_loop"]


class Case(Protocol):
    """What sides are given; picklable."""

    def set_up(self) -> None:
        """Set this process up, before anything is run in it."""


class SideProcess:
    """A process that runs turns of one side, or of sides that may share its memory."""

    def __init__(self, sides: Mapping[str, Side], case: Case, *, turns: int) -> None:
        context = process_context()
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, dict(sides), case, turns))
        self._process.start()
        there.close()

    def begin_turn(self, name: str) -> None:
        self._here.send(name)

    def rate(self) -> float:
        """Wait for the turn that was begun; EOFError where the process died of it."""
        return float(self._here.recv())

    def close(self) -> None:
        self._here.close()
        self._process.join()


def process_context() -> Any:
    """Return what starts clean processes: forked, where that is known, from one that has only imported."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def run_in_turn(
    case: Case, groups: Sequence[Mapping[str, Side]], *, turns: int, warm_up: int
) -> dict[str, list[float]]:
    """Return the rates of the counted turns, by side; the sides of a group share a process."""
    rates: dict[str, list[float]] = {name: [] for sides in groups for name in sides}
    with contextlib.ExitStack() as stack:
        by_side: dict[str, SideProcess] = {}
        for sides in groups:
            process = stack.enter_context(contextlib.closing(SideProcess(sides, case, turns=turns + warm_up)))
            by_side |= dict.fromkeys(sides, process)
        for turn in range(turns + warm_up):
            for name, process in by_side.items():
                process.begin_turn(name)
                rate = process.rate()
                if turn >= warm_up:
                    rates[name].append(rate)
    return rates


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, float]:
    """Return median, lowest and highest of the ratios within each turn."""
    return spread([a / b for a, b in zip(numerators, denominators, strict=True)])


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def spread_text(found: Mapping[str, float]) -> str:
    return f"{found['median']:.2f} ({found['lowest']:.2f} to {found['highest']:.2f})"


def _serve(requests: Connection, sides: Mapping[str, Side], case: Case, turns: int) -> None:
    """Run a turn of the side that is asked for and answer its rate, until nobody asks."""
    case.set_up()
    running = {name: side(case, turns=turns) for name, side in sides.items()}
    while True:
        try:
            name = requests.recv()
        except EOFError:
            return
        requests.send(next(running[name]))
