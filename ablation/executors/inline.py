"""Runs each job in this process: for debugging."""

from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from ablation.executors.interface import Files, Place, T, carried
from ablation.stopping import Preempted, stopping


class InlineExecutor:
    """Runs each job in this process before `submit` returns: for debugging."""

    def __init__(self, *, device: str) -> None:
        self.slots: tuple[str, ...] = (device,)
        self.is_here = True
        self.is_on_gpu = device != "cpu"

    def submit(self, function: Callable[..., T], *args: Any, files: Files | None = None) -> "Future[T]":
        future: Future[T] = Future()
        place = () if files is None else (Place(folder=files.home, is_home=files.is_home, changed=files.on_change),)
        try:
            with stopping.patiently(), stopping.hearing():
                future.set_result(function(*args, *place))
        except BaseException as error:
            if stopping.is_interruption(error) and not (stopping.is_asked or isinstance(error, Preempted)):
                raise
            future.set_exception(carried(error))
        return future

    def require(self, check: Callable[[str], object]) -> None:
        for slot in self.slots:
            check(slot)

    def take_notes(self) -> list[str]:
        return []

    def stop(self) -> None:
        """Nothing runs while nobody is in `submit`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
