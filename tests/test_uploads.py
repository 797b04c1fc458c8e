"""What is recorded beside the training: all of it in the end, whatever fails on the way."""

import pytest
from factories import make_plan

from ablation.errors import TrackingUnavailable
from ablation.results import Epoch, ReportedEpoch
from ablation.tracking import RunDescription
from ablation.worker.uploads import Uploader

EPOCHS = [ReportedEpoch(epoch=epoch, metrics={"accuracy": 0.5}, timestamp_ms=1) for epoch in (1, 2)]


class Faltering:
    """A tracker that fails a number of calls."""

    def __init__(self, *, failures: int) -> None:
        self._failures = failures
        self.described: list[RunDescription] = []
        self.logged: list[Epoch] = []

    def describe_run(self, run_id: str, description: RunDescription) -> None:
        self._falter()
        self.described.append(description)

    def log_epochs(self, run_id: str, epochs: list[Epoch], *, heldout_split: str) -> None:
        self._falter()
        self.logged += epochs

    def _falter(self) -> None:
        self._failures -= 1
        if self._failures >= 0:
            raise TrackingUnavailable("sqlite:///mlflow.db", "busy")


def upload(tracker: Faltering) -> RunDescription:
    plan = make_plan(seeds=1)
    description = RunDescription.of(plan.runs[0], plan)
    uploader = Uploader(tracker, "a", heldout_split="test", description=description)
    for epoch in EPOCHS:
        uploader.put(epoch)
    uploader.close()
    return description


@pytest.mark.parametrize("failures", range(4))
def test_description_and_epochs_are_recorded_once_though_the_tracker_falters(failures: int) -> None:
    tracker = Faltering(failures=failures)

    description = upload(tracker)

    assert [description] == tracker.described
    assert EPOCHS == tracker.logged


def test_a_description_that_cannot_be_recorded_is_an_error_in_the_end() -> None:
    with pytest.raises(TrackingUnavailable):
        upload(Faltering(failures=100))
