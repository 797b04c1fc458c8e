"""Runs each job in this process: for debugging."""

from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from ablation.executors.interface import P, T, carried
from ablation.stopping import Preempted, stopping


class InlineExecutor:
    """Runs each job in this process before `submit` returns: for debugging."""

    def __init__(self, *, device: str) -> None:
        self.slots: tuple[str, ...] = (device,)
        self.is_on_gpu = device != "cpu"

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        future: Future[T] = Future()
        try:
            with stopping.patiently(), stopping.hearing():
                future.set_result(function(*args, **kwargs))
        except BaseException as error:
            if stopping.is_interruption(error) and not (stopping.is_asked or isinstance(error, Preempted)):
                raise
            future.set_exception(carried(error))
        return future

    def stop(self) -> None:
        """Nothing runs while nobody is in `submit`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
