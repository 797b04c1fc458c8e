"""Tunes one variant with Optuna: which settings to try next, when to stop a trial early, which were best.

Trials follow one another, and what is suggested depends only on the trials that have ended and on the trial's number,
whose random stream is the same for every variant. So a variant's tuning comes out the same with any number of workers,
beside any other variant, and after an interruption.
"""

import hashlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import Trial, TrialState

from ablation.results import Direction, TunedVariant, TuningTrial
from ablation.scheduling.storage import explained, open_storage
from ablation.streams import Purpose, stream_seed
from ablation.study.tuning import SearchSpace, Tuning

RECORD = "trial"
STARTUP_TRIALS = 5
"""Trials before TPE has enough to go by, and before a trial may be pruned (Optuna's default for its median pruner)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """Settings to try. `stops_below` gives, by epoch, the value under which the trial is stopped, where there is one.

    Values are those of the objective with its sign turned where it is minimized, so that more is better.
    """

    number: int
    settings: Mapping[str, Any]
    stops_below: tuple[float, ...]


class TuningSchedule:
    """The tuning of one variant; made by `open_tuning`, used by one thread."""

    def __init__(
        self,
        url: str,
        study: optuna.Study,
        *,
        variant: str,
        tuning: Tuning,
        start: Mapping[str, Any],
        study_seed: int,
    ) -> None:
        self._url = url
        self._start = start
        self._study = study
        self._tuning = tuning
        self._study_seed = study_seed
        self._trial: Trial | None = None
        self.variant = variant

    def next_trial(self) -> Suggestion | None:
        """Return what to try next, or None where the budget is spent."""
        with explained(self._url):
            ended = self._ended()
            number = len(ended)
            if number >= self._tuning.trials:
                return None
            self._study.sampler = self._sampler(number)
            if number == 0 and not self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                self._study.enqueue_trial(dict(self._start))
            self._trial = self._study.ask()
            settings = {
                path: _suggested(self._trial, path, space) for path, space in sorted(self._tuning.spaces.items())
            }
            return Suggestion(number=number, settings=settings, stops_below=self._stops_below(ended))

    def tell(self, trial: TuningTrial) -> None:
        """Record how the trial that was asked for last ended."""
        asked, self._trial = self._trial, None
        assert asked is not None
        with explained(self._url):
            asked.set_user_attr(RECORD, _to_json(trial))
            for epoch, value in enumerate(trial.curve, start=1):
                asked.report(value, step=epoch)
            if trial.value is not None:
                self._study.tell(asked, trial.value)
            else:
                self._study.tell(asked, state=TrialState.PRUNED if trial.outcome == "pruned" else TrialState.FAIL)

    def result(self) -> TunedVariant | None:
        """Return the whole tuning, the first of the best trials chosen; None where no trial has a value."""
        with explained(self._url):
            trials = tuple(self._ended())
        valued = [trial for trial in trials if trial.value is not None]
        if not valued:
            return None
        best = max(valued, key=lambda trial: (self._sign * float(trial.value or 0.0), -trial.number))
        return TunedVariant(variant=self.variant, trials=trials, chosen=best.number, settings=best.settings)

    @property
    def _sign(self) -> int:
        return 1 if self._study.direction is optuna.study.StudyDirection.MAXIMIZE else -1

    def _ended(self) -> list[TuningTrial]:
        found = [trial.user_attrs[RECORD] for trial in self._study.get_trials(deepcopy=False) if _is_recorded(trial)]
        return [_from_json(text) for text in found]

    def _sampler(self, number: int) -> BaseSampler:
        seed = stream_seed(self._study_seed, Purpose.TUNING, number) % 2**32
        if self._tuning.sampler == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)

    def _stops_below(self, ended: Sequence[TuningTrial]) -> tuple[float, ...]:
        if self._tuning.pruner == "none":
            return ()
        return median_bounds([trial.curve for trial in ended if trial.outcome == "done"], sign=self._sign)


def median_bounds(curves: Sequence[Sequence[float]], *, sign: int) -> tuple[float, ...]:
    """Return the median of earlier whole trials by epoch: what the best so far must not fall below.

    That is the rule of Optuna's MedianPruner with its defaults, worked out before the trial starts: where it stops then
    does not depend on how fast anyone looks. `sign` is -1 where the objective is minimized. None while trials are few.
    """
    if len(curves) < STARTUP_TRIALS:
        return ()
    return tuple(statistics.median(sign * value for value in values) for values in zip(*curves, strict=False))


def open_tuning(
    url: str,
    *,
    name: str,
    variant: str,
    tuning: Tuning,
    start: Mapping[str, Any],
    direction: Direction,
    study_seed: int,
    basis: str,
) -> TuningSchedule:
    """Open the tuning of a study's variant in Optuna's storage, where it left off.

    `start` is tried first: the file's own settings, where they lie within the spaces, so that what is found is never
    worse than they are on validation. `basis` identifies all that its results depend on beside the settings tried:
    another basis is another tuning.

    Raises:
        StorageUnavailable: the storage cannot be opened.
    """
    digest = hashlib.sha256(f"{basis}/{tuning.model_dump_json()}".encode()).hexdigest()[:12]
    study_name = f"{name}/tuning/{variant}/{digest}"
    with explained(url):
        storage = open_storage(url)
        try:
            study = optuna.create_study(storage=storage, study_name=study_name, direction=direction)
        except DuplicatedStudyError:
            study = optuna.load_study(storage=storage, study_name=study_name)
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                study.tell(trial.number, state=TrialState.FAIL)  # its coordinator is gone
    return TuningSchedule(url, study, variant=variant, tuning=tuning, start=start, study_seed=study_seed)


def _is_recorded(trial: optuna.trial.FrozenTrial) -> bool:
    return RECORD in trial.user_attrs and trial.state is not TrialState.RUNNING


def _suggested(trial: Trial, path: str, space: SearchSpace) -> Any:
    if space.choices is not None:
        return trial.suggest_categorical(path, space.choices)
    if space.integers is not None:
        return trial.suggest_int(path, *space.integers)
    low, high = space.log or space.linear or (0.0, 0.0)
    return trial.suggest_float(path, low, high, log=space.log is not None)


def _to_json(trial: TuningTrial) -> str:
    values = {name: getattr(trial, name) for name in TuningTrial.__dataclass_fields__}
    return json.dumps(values)


def _from_json(text: str) -> TuningTrial:
    values = json.loads(text)
    return TuningTrial(**{**values, "curve": tuple(values["curve"]), "run_ids": tuple(values["run_ids"])})
