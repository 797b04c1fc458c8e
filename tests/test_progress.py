"""How far a study is said to be: never further than it is."""

import pytest

from ablation.api.progress import _Clock
from ablation.coordinator.progress import Progress
from ablation.records import Outcome, PlannedRun, ReportedEpoch
from ablation.study import Study, parse_study

OWN = """
name: own
training: {{name: "t.py:train", x: 1{epochs}}}
factors: {{training.x: [1, 2]}}
metric: {{name: score, direction: maximize}}
"""


def own_study(epochs: str) -> Study:
    return parse_study(OWN.format(epochs=epochs).encode(), source="own.yaml")


def running(epoch: int) -> Progress:
    under_way = PlannedRun(identity="0" * 32, variant="x=1", seed=0)
    return Progress(
        planned=8,
        ended={Outcome.DONE: 1},
        running=((under_way, ReportedEpoch(epoch=epoch, metrics={}, timestamp_ms=1)),),
    )


@pytest.mark.parametrize("epochs", ["", ", epochs: 2", ", epochs: many"])
def test_a_run_that_reports_more_than_it_said_is_at_most_one_run(epochs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("ablation.api.progress.time.monotonic", lambda: now)
    clock = _Clock(study=own_study(epochs))
    clock.seconds_left(Progress(planned=8, ended={}, running=()))
    now = 10.0

    left = clock.seconds_left(running(4))

    assert left is not None
    assert left >= 10.0 / 2 * 6


def test_an_epoch_is_said_to_be_one_of_so_many_only_where_it_can_be() -> None:
    clock = _Clock(study=own_study(", epochs: 2"))

    texts = [clock.epoch_text(ReportedEpoch(epoch=epoch, metrics={}, timestamp_ms=1)) for epoch in (1, 2, 3)]

    assert ["epoch 1/2", "epoch 2/2", "epoch 3"] == texts


def test_a_later_look_goes_on_from_the_pace_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("ablation.api.progress.time.monotonic", lambda: now)
    clock = _Clock(study=own_study(", epochs: 2"))
    look = "look 0 of 2: 1 open, 0 decided"
    clock.seconds_left(Progress(planned=4, look=look))
    now = 40.0
    clock.seconds_left(Progress(planned=4, ended={Outcome.DONE: 4}, look=look))

    assert 40.0 == clock.seconds_left(
        Progress(planned=8, ended={Outcome.DONE: 4}, look="look 1 of 2: 1 open, 0 decided")
    )
