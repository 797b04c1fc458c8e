"""Checks a study file, or a mapping with its keys, with the changes of a call; shows it before it costs anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation.api.arguments import check_above_zero, check_kind
from ablation.api.places import tracker_at
from ablation.errors import AblationError, ArgumentInvalid, NameUnknown, NoiseUnknown
from ablation.lookup import nearest_names

if TYPE_CHECKING:
    from ablation.preview import Preview
    from ablation.storage.state import State
    from ablation.study import Study
    from ablation.tracking import Tracker


def checked_study(
    file: str | PathLike[str] | Mapping[str, Any],
    *,
    seeds: int | Sequence[int] | Mapping[str, Any] | None,
    changes: Mapping[str, Any],
    name: str | None,
) -> Study:
    """Read and check a study with changes by their paths.

    Raises:
        StudyFileError: with every problem found.
        AblationError: the file cannot be read.
    """
    check_kind("file", file)
    check_kind("set", changes)
    from ablation.study import load_study, overrides_of, study_of_values

    overrides = overrides_of({**changes, **({"seeds": seeds} if seeds is not None else {})})
    if isinstance(file, Mapping):
        return study_of_values(file, overrides=overrides, name=name)
    if file == "":
        raise ArgumentInvalid("file", file, "the path of a study file")
    return load_study(Path(file), overrides=overrides, name=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Where the SD of one variant's runs from seed to seed is taken from: a number, a recorded study, or nowhere.

    `value` is on the study's metric, in the unit that reports show: points for a fraction. Of a user's training
    function it is in the unit that the function returns.

    Raises:
        ArgumentInvalid: a value is none that there is.
        AblationError: both are given.
    """

    value: float | None = None
    study: str | None = None
    tracking_uri: str | None = None

    def __post_init__(self) -> None:
        check_above_zero("noise", self.value)
        check_kind("noise_from", self.study, kind="study", is_optional=True)
        if self.value is not None and self.study is not None:
            raise AblationError("--noise gives the noise and --noise-from takes it from a study: give one of them")

    def of(self, study: Study) -> dict[str, float]:
        """Return the noise by metric, in the metric's unit; that of a recorded study on all that it compares."""
        from ablation.analysis.contrasts import before_runs, measured_metric
        from ablation.coordinator.planning import outline_of
        from ablation.report.numbers import scale_of

        name = study.spec.metric.name
        if self.value is not None:
            plan = outline_of(study)
            return {name: self.value / scale_of(before_runs(measured_metric(plan, name), plan).unit)}
        if self.study is None:
            return {}
        return recorded_noise(self.study, study, tracker=tracker_at(self.tracking_uri))


def recorded_noise(recorded: str, study: Study, *, tracker: Tracker) -> dict[str, float]:
    """Return the noise of a recorded study on the metrics that another asks about; on its own metric there must be one.

    Raises:
        StudyUnknown, NameUnknown, NoiseUnknown, TrackingUnavailable.
    """
    from ablation.analysis.power import noise_of
    from ablation.pipeline import find_study

    record = find_study(recorded, tracker=tracker)
    runs = tracker.recorded_runs(record, with_details=False)
    own = study.spec.metric.name
    asked = dict.fromkeys((own, *(question.on for question in study.questions if question.on is not None)))
    known = record.plan.metrics
    if own not in known:
        raise NameUnknown("metric", own, near=nearest_names(own, known), known=known, option=f"--noise-from {recorded}")
    found = {name: noise for name in asked if name in known and (noise := noise_of(record.plan, runs, name))}
    if own not in found:
        raise NoiseUnknown(recorded, own)
    return found


def preview(study: Study, device: str, state: State, noise: Noise) -> Preview:
    """Return a study before it costs anything, its variants timed on the first of the devices.

    Raises:
        AblationError: the study cannot be run as it is, or its noise is not known; see `preview_study`.
    """
    from ablation.preview import preview_study
    from ablation.worker import resolve_devices

    return preview_study(study, state=state, device=resolve_devices(device)[0], noise=noise.of(study))
