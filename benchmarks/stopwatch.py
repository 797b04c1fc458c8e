"""Sums what one thread spends by phase: wall and CPU time, cut where named functions are called and return."""

import contextlib
import functools
import inspect
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Calls = Mapping[str, tuple[tuple[Any, str], ...]]
"""The functions of each phase: whose attribute, and its name."""


@dataclass(slots=True)
class Spent:
    """What a phase took, summed over its calls."""

    calls: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Stopwatch:
    """Sums the time of one thread by phase; a phase inside another interrupts it, unless that one is kept whole."""

    whole: tuple[str, ...] = ()
    spent: dict[str, Spent] = field(default_factory=dict)
    inside: list[str] = field(default_factory=list)
    since: tuple[float, float] = (0.0, 0.0)

    @contextlib.contextmanager
    def phase(self, name: str, *, calls: int = 1) -> Iterator[None]:
        if any(outer in self.whole for outer in self.inside):
            yield
            return
        self._lap()
        self.inside.append(name)
        self.spent.setdefault(name, Spent()).calls += calls
        try:
            yield
        finally:
            self._lap()
            self.inside.pop()

    def forget(self) -> None:
        """Begin anew, amid the phases that are under way; those that are kept whole keep what they took."""
        self._lap()
        kept = {name: spent for name, spent in self.spent.items() if name in self.whole}
        self.spent = {**kept, **{name: Spent() for name in self.inside}}

    @contextlib.contextmanager
    def cutting(self, calls: Calls) -> Iterator[None]:
        """Put a function that is timed in the place of each; only this thread may call them meanwhile."""
        with contextlib.ExitStack() as stack:
            for phase, functions in calls.items():
                for owner, name in functions:
                    function = getattr(owner, name)
                    stack.callback(setattr, owner, name, function)
                    is_generator = inspect.isgeneratorfunction(function)
                    setattr(owner, name, (self._timed_steps if is_generator else self._timed)(phase, function))
            yield

    def _timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.phase(phase):
                return function(*args, **kwargs)

        return call

    def _timed_steps(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Time a generator's own steps, and nothing of what is done between them."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Generator[Any, None, Any]:
            steps, calls = function(*args, **kwargs), 1
            while True:
                with self.phase(phase, calls=calls):
                    try:
                        step = next(steps)
                    except StopIteration as end:
                        return end.value
                calls = 0
                yield step

        return call

    def _lap(self) -> None:
        now = (time.perf_counter(), time.thread_time())
        if self.inside:
            spent = self.spent[self.inside[-1]]
            spent.wall_s += now[0] - self.since[0]
            spent.cpu_s += now[1] - self.since[1]
        self.since = now
