"""Records a run's epochs from a thread of its own, so that training does not wait for the tracker."""

import queue
import threading

from ablation.results import Epoch
from ablation.tracking import Tracker


class Uploader:
    """Records epochs from a thread of its own, so that training does not wait for the tracker.

    What could not be recorded is kept, and tried again with the next epoch and when it is closed.
    """

    def __init__(self, tracker: Tracker, run_id: str, *, heldout_split: str) -> None:
        self._tracker = tracker
        self._run_id = run_id
        self._heldout_split = heldout_split
        self._epochs: queue.SimpleQueue[Epoch | None] = queue.SimpleQueue()
        self._kept: list[Epoch] = []
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)
        self._thread.start()

    def put(self, metrics: Epoch) -> None:
        self._epochs.put(metrics)

    def close(self) -> None:
        """Wait until all is recorded.

        Raises:
            TrackingUnavailable: some of it still could not be.
        """
        self._epochs.put(None)
        self._thread.join()
        if self._kept:
            self._record(self._kept)

    def _work(self) -> None:
        while (metrics := self._epochs.get()) is not None:
            self._kept.append(metrics)
            try:
                self._record(self._kept)
            except Exception:  # noqa: BLE001, S112 - kept, and raised by `close` if it goes on
                continue
            self._kept = []

    def _record(self, epochs: list[Epoch]) -> None:
        self._tracker.log_epochs(self._run_id, epochs, heldout_split=self._heldout_split)
