"""A node's room for jobs: a process for each at a time, and a GPU where there are any."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ablation.executors.nodes.jobs import run_packed, visible_gpus
from ablation.executors.processes import ProcessExecutor

PROBE_S = 120.0
PROBING = "probing"


@dataclass(slots=True, kw_only=True)
class Slot:
    """Room for one job at a time: a process, which stays for the next one, and a GPU where there are any.

    `taken_by` is the token of its job.
    """

    device: str
    gpu: str | None = None
    taken_by: str | None = None
    executor: ProcessExecutor | None = None

    def processes(self) -> ProcessExecutor:
        if self.executor is None:
            self.executor = ProcessExecutor(slots=("cpu",))
        return self.executor

    def end(self) -> None:
        """Bring what runs here to an end, within the grace."""
        executor, self.executor = self.executor, None
        if executor is not None:
            executor.stop()
            executor.__exit__(None, None, None)


class Slots:
    """One slot per GPU that can be used, and `threads` on the CPU; in any thread."""

    def __init__(self, threads: int, *, gpus: Callable[[], tuple[tuple[str, ...], str]] = visible_gpus) -> None:
        """Know how many; `gpus` is called in a process when it is first asked, and says what GPUs there are."""
        self._threads, self._gpus = max(1, threads), gpus
        self._slots: Mapping[str, list[Slot]] = {}
        self._changed, self._looking = threading.Lock(), threading.Lock()
        self.why_no_gpu = ""

    def by_device(self) -> Mapping[str, list[Slot]]:
        """Return all of them; the first call starts a process, which has PyTorch for its first job then."""
        with self._looking:
            if not self._slots:
                cpus = [Slot(device="cpu") for _ in range(self._threads)]
                gpus, self.why_no_gpu = cpus[0].processes().submit(self._gpus).result(timeout=PROBE_S)
                self._slots = {"cpu": cpus, "cuda": [Slot(device="cuda", gpu=gpu) for gpu in gpus]}
            return self._slots

    def take(self, device: str, token: str) -> Slot | None:
        """Return a free slot, which is the token's now; None where there is none."""
        slots = self.by_device().get(device, ())
        with self._changed:
            slot = next((slot for slot in slots if slot.taken_by is None), None)
            if slot is not None:
                slot.taken_by = token
            return slot

    def leave(self, slot: Slot, token: str) -> None:
        """Free a slot, unless it is another's by now."""
        with self._changed:
            if slot.taken_by == token:
                slot.taken_by = None

    def free(self) -> dict[str, int]:
        """Return how many are free, by device."""
        with self._changed:
            return {device: sum(slot.taken_by is None for slot in found) for device, found in self._slots.items()}

    def most(self) -> int:
        """Return how many jobs may run here at a time, of what is known by now."""
        return max((len(found) for found in self._slots.values()), default=0)

    def probe(self, call: bytes, device: str) -> None:
        """Run a call as a job would be: in the process of a free slot with its GPU, else in one of its own.

        Raises:
            Exception: what it raises.
        """
        slots, free = self.by_device().get(device, ()), self.take(device, PROBING)
        slot = free or Slot(device=device, gpu=slots[0].gpu if slots else None)
        try:
            slot.processes().submit(run_packed, call, slot.gpu).result(timeout=PROBE_S)
        finally:
            if free is None:
                slot.end()
            else:
                self.leave(free, PROBING)

    def end(self) -> None:
        """End all processes."""
        for slot in [slot for found in self._slots.values() for slot in found]:
            slot.end()
