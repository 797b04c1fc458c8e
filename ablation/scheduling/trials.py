"""Tunes one variant with Optuna: which settings to try next, when to stop a trial early, which were best.

Trials follow one another, and what is suggested depends only on the trials that have ended and on the trial's number,
whose random stream is the same for every variant. So a variant's tuning comes out the same with any number of workers,
beside any other variant, and after an interruption.
"""

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from ablation.records import Direction, TunedVariant, TuningTrial
from ablation.scheduling.storage import explained, open_storage, trials_in, tuning_name
from ablation.streams import Purpose, stream_seed
from ablation.study.search_spaces import SearchSpace, Tuning, drawing_order

RECORD = "trial"
MAX_STUDY_NAME = 512
"""Characters of a study's name in Optuna's databases."""
STARTUP_TRIALS = 5
"""Trials before TPE has enough to go by, and before a trial may be pruned (Optuna's default for its median pruner).

TPE's own default is 10: with a budget of 10 trials it would never begin.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """Settings to try. `stops_below` gives, by epoch, the value under which the trial is stopped, where there is one.

    Values are those of the objective with its sign turned where it is minimized, so that more is better.
    """

    number: int
    settings: Mapping[str, Any]
    stops_below: tuple[float, ...]


class TuningSchedule:
    """The tuning of one variant; made by `open_tuning`, used by one thread.

    Each method raises StorageUnavailable where the database fails, and can then be called again with the same
    arguments, whatever had been done before.
    """

    def __init__(
        self,
        url: str,
        study: optuna.Study,
        *,
        variant: str,
        tuning: Tuning,
        whole: Collection[str],
        start: Mapping[str, Any],
        study_seed: int,
        given: Mapping[str, Any],
    ) -> None:
        self._url = url
        self._start = start
        self._given = given
        self._study = study
        self._tuning = tuning
        self._whole = whole
        self._study_seed = study_seed
        self._trial: Trial | None = None
        self._reported = 0
        self.variant = variant

    def next_trial(self) -> Suggestion | None:
        """Return what to try next, or None where the budget is spent."""
        with explained(self._url):
            ended = self._ended()
            number = len(ended)
            if number >= self._tuning.trials or (ended and self._has_nothing_to_draw):
                return None
            self._study.sampler = self._sampler(number)
            trial = self._asked() or self._ask(is_first=number == 0)
            settings = self._drawn(trial)
            self._trial, self._reported = trial, 0
            return Suggestion(number=number, settings=settings, stops_below=self._stops_below(ended))

    def _drawn(self, trial: Trial) -> dict[str, Any]:
        """Draw the settings whose conditions hold, each behind what its condition looks at."""
        spaces, drawn = self._tuning.spaces, dict[str, Any]()
        for path in drawing_order(spaces):
            if spaces[path].is_drawn({**self._given, **drawn}):
                drawn[path] = self._suggested(trial, path, spaces[path])
        return drawn

    @property
    def _has_nothing_to_draw(self) -> bool:
        """Whether no condition holds in this variant: a setting that is not drawn first lets no other be drawn."""
        return not any(space.is_drawn(self._given) for space in self._tuning.spaces.values())

    def _suggested(self, trial: Trial, path: str, space: SearchSpace) -> Any:
        if space.choices is not None:
            return trial.suggest_categorical(path, space.choices)
        low, high = space.bounds
        if space.integers is not None or path in self._whole:
            return trial.suggest_int(path, math.ceil(low), math.floor(high), log=space.is_log)
        return trial.suggest_float(path, low, high, log=space.is_log)

    def tell(self, trial: TuningTrial) -> None:
        """Record how the trial that was asked for last ended."""
        asked = self._trial
        assert asked is not None
        with explained(self._url), suppress(UpdateFinishedTrialError):  # which it is where only the answer was lost
            for epoch, value in enumerate(trial.curve[self._reported :], start=self._reported + 1):
                asked.report(value, step=epoch)
                self._reported = epoch
            asked.set_user_attr(RECORD, _to_json(trial))
            _tell(self._study, asked.number, trial)
        self._trial = None

    def result(self) -> TunedVariant | None:
        """Return the whole tuning, the first of the best trials chosen; None where no trial has a value."""
        with explained(self._url):
            trials = tuple(self._ended())
        valued = [trial for trial in trials if trial.value is not None]
        if not valued:
            return None
        best = max(valued, key=lambda trial: (self._sign * float(trial.value or 0.0), -trial.number))
        return TunedVariant(variant=self.variant, trials=trials, chosen=best.number, settings=best.settings)

    def _ask(self, *, is_first: bool) -> Trial:
        if is_first and not trials_in(self._study, TrialState.WAITING):
            self._study.enqueue_trial(dict(self._start))
        return self._study.ask()

    def _asked(self) -> Trial | None:
        """Take up a trial that was asked for in vain; one with some settings is given up, to draw them all again."""
        taken = None
        for trial in trials_in(self._study, TrialState.RUNNING):
            if trial.params:
                _end(self._study, trial)
            else:
                taken = Trial(self._study, trial._trial_id)
        return taken

    @property
    def _sign(self) -> int:
        return 1 if self._study.direction is optuna.study.StudyDirection.MAXIMIZE else -1

    def _ended(self) -> list[TuningTrial]:
        found = [trial.user_attrs[RECORD] for trial in self._study.get_trials(deepcopy=False) if _is_recorded(trial)]
        return [_from_json(text) for text in found]

    def _sampler(self, number: int) -> BaseSampler:
        seed = stream_seed(self._study_seed, Purpose.TUNING, number) % 2**32
        return SAMPLERS[self._tuning.sampler](seed)

    def _stops_below(self, ended: Sequence[TuningTrial]) -> tuple[float, ...]:
        curves = [trial.curve for trial in ended if trial.outcome == "done"]
        return PRUNERS[self._tuning.pruner](curves, sign=self._sign)


def median_bounds(curves: Sequence[Sequence[float]], *, sign: int) -> tuple[float, ...]:
    """Return the median of earlier whole trials by epoch: what the best so far must not fall below.

    That is the rule of Optuna's MedianPruner with its defaults, worked out before the trial starts: where it stops then
    does not depend on how fast anyone looks. `sign` is -1 where the objective is minimized. None while trials are few.
    """
    if len(curves) < STARTUP_TRIALS:
        return ()
    return tuple(statistics.median(sign * value for value in values) for values in zip(*curves, strict=False))


def _no_bounds(_curves: Sequence[Sequence[float]], *, sign: int) -> tuple[float, ...]:  # noqa: ARG001 - as the others
    return ()


class Pruner(Protocol):
    """Gives what the best value of a trial so far must not fall below, by epoch, from the curves of earlier ones."""

    def __call__(self, curves: Sequence[Sequence[float]], /, *, sign: int) -> tuple[float, ...]: ...


SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
    "random": lambda seed: RandomSampler(seed=seed),
}
STATES: Mapping[str, TrialState] = {
    "done": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "diverged": TrialState.FAIL,
    "failed": TrialState.FAIL,
}
"""What Optuna calls the end of a trial, by its outcome."""
PRUNERS: Mapping[str, Pruner] = {"median": median_bounds, "none": _no_bounds}


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
    whole: Collection[str] = (),
    given: Mapping[str, Any] = MappingProxyType({}),
) -> TuningSchedule:
    """Open the tuning of a study's variant in Optuna's storage, where it left off.

    `start` is tried first: the file's own settings, where they lie within the spaces, so that what is found is never
    worse than they are on validation. `whole` are the settings that are whole numbers whatever their scale. `given` has
    what conditions look at, as it is where it is not drawn: the variant's levels, and the file's settings. `basis`
    identifies all that its results depend on beside the settings tried: another basis is another tuning.

    Raises:
        StorageUnavailable: the storage cannot be opened.
    """
    on_scales = sorted(path for path in whole if tuning.spaces[path].integers is None)
    asked = "/".join(
        [basis, tuning.model_dump_json(), *on_scales]
    )  # which Optuna cannot change in a study that is there
    digest = hashlib.sha256(asked.encode()).hexdigest()[:12]
    study_name = _study_name(tuning_name(name, variant), digest)
    with explained(url):
        storage = open_storage(url)
        try:
            study = optuna.create_study(storage=storage, study_name=study_name, direction=direction)
        except DuplicatedStudyError:
            study = optuna.load_study(storage=storage, study_name=study_name)
            for trial in trials_in(study, TrialState.RUNNING):
                _end(study, trial)
    return TuningSchedule(
        url, study, variant=variant, tuning=tuning, whole=whole, start=start, study_seed=study_seed, given=given
    )


def _study_name(readable: str, digest: str) -> str:
    """Return a name that Optuna's column holds; the digest alone tells it from all others."""
    most = MAX_STUDY_NAME - len(digest) - 1
    return f"{readable if len(readable) <= most else f'{readable[: most - 1]}…'}/{digest}"


def _end(study: optuna.Study, trial: FrozenTrial) -> None:
    """Close an abandoned trial; report its stored result if it has one."""
    if RECORD in trial.user_attrs:
        _tell(study, trial.number, _from_json(trial.user_attrs[RECORD]))
    else:
        study.tell(trial.number, state=TrialState.FAIL)


def _tell(study: optuna.Study, number: int, trial: TuningTrial) -> None:
    if trial.value is not None:
        study.tell(number, trial.value)
    else:
        study.tell(number, state=STATES[trial.outcome])


def _is_recorded(trial: FrozenTrial) -> bool:
    return RECORD in trial.user_attrs and trial.state is not TrialState.RUNNING


def _to_json(trial: TuningTrial) -> str:
    values = {name: getattr(trial, name) for name in TuningTrial.__dataclass_fields__}
    return json.dumps(values)


def _from_json(text: str) -> TuningTrial:
    values = json.loads(text)
    return TuningTrial(**{**values, "curve": tuple(values["curve"]), "run_ids": tuple(values["run_ids"])})
