"""Records what a run is and its epochs from a thread of its own, so that training does not wait for the tracker."""

import contextlib
import queue
import threading

from ablation.results import Epoch
from ablation.tracking import RunDescription, Tracker


class Uploader:
    """Records a run's description and its epochs from a thread of its own.

    What could not be recorded is kept, and tried again with the next epoch and when it is closed.
    """

    def __init__(
        self, tracker: Tracker, run_id: str, *, heldout_split: str, description: RunDescription | None = None
    ) -> None:
        self._tracker = tracker
        self._run_id = run_id
        self._heldout_split = heldout_split
        self._epochs: queue.SimpleQueue[Epoch | None] = queue.SimpleQueue()
        self._kept: list[Epoch] = []
        self._description = description
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
        self._record()

    def _work(self) -> None:
        self._try_to_record()
        while (metrics := self._epochs.get()) is not None:
            self._kept.append(metrics)
            self._try_to_record()

    def _try_to_record(self) -> None:
        with contextlib.suppress(Exception):  # kept, and raised by `close` if it goes on
            self._record()

    def _record(self) -> None:
        if self._description is not None:
            self._tracker.describe_run(self._run_id, self._description)
            self._description = None
        if self._kept:
            self._tracker.log_epochs(self._run_id, self._kept, heldout_split=self._heldout_split)
            self._kept = []
