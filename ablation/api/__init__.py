"""What `import ablation` gives: run a study, open a recorded one, plan, compare, and get a trained model back.

The command line calls the same functions. Their errors are AblationError, and name the command line's options, which
the arguments here are named after: `--tracking-uri` is `tracking_uri`. What they need is imported when they are called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from ablation.api.arguments import check_above_zero, check_kind, check_switches
from ablation.api.places import launch_kept, state_at, tracker_at
from ablation.api.result import StudyResult
from ablation.errors import AblationError, StudyWithin

if TYPE_CHECKING:
    from torch import nn

    from ablation.analysis import Comparison
    from ablation.api.trained import Trusted
    from ablation.preview import Preview
    from ablation.tracking import Tracker

    StudyFile = str | PathLike[str] | Mapping[str, Any]
    """A study file's path, or what such a file says as plain values."""
    Seeds = int | Sequence[int] | Mapping[str, Any]
    """Runs per variant, planned looks as a study file has them (`{"looks": [5, 8, 12]}`), or seed indices."""
    Levels = str | Mapping[str, Any]
    """A variant's name, or its levels by their factors."""

__all__ = ["AblationError", "StudyResult", "compare", "load_model", "open", "plan", "run"]


def run(
    file: StudyFile,
    *,
    seeds: Seeds | None = None,
    set: Mapping[str, Any] | None = None,  # noqa: A002 - as the option
    name: str | None = None,
    device: str = "auto",
    executor: str = "auto",
    insecure_network: bool = False,
    workers: int | None = None,
    fuse: int | None = None,
    cudnn_benchmark: bool = False,
    tracking_uri: str | None = None,
    state_dir: str | PathLike[str] | None = None,
    storage: str | None = None,
    retry_failed: bool = False,
    fresh: bool = False,
    reuse: bool = False,
    budget: str | None = None,
    progress: bool = True,
) -> StudyResult:
    """Run a study, or what is left of it, and return what it came to: `ablation study FILE`.

    Runs that failed raise nothing: the result says so. An interrupt (Ctrl-C, a notebook's stop button) ends the study
    in good order and is raised again as KeyboardInterrupt: the same call resumes.

    Args:
        file: a study file's path, or a mapping with its keys.
        seeds: runs per variant, planned looks `{"looks": [5, 8, 12]}` or `{"first": 5, "last": 20}`, or seed indices.
        set: changes to it by path: `{"training.epochs": 5}`.
        device: auto, cpu, cuda or cuda:N.
        executor: auto, inline (in this process), processes, or dask:WHERE, the file or address of a scheduler.
        insecure_network: use dask without TLS in a network where whoever reaches its ports can run code as you.
        workers: jobs at a time; by default one per GPU, or per core; with dask, at most.
        fuse: runs that a job trains together; by default as many as pay.
        tracking_uri: MLflow's store; by default that of MLFLOW_TRACKING_URI, or sqlite:///mlflow.db.
        state_dir: by default that of ABLATION_STATE_DIR, or `.ablation` in the working directory.
        storage: Optuna's; by default a file in the state folder.
        budget: wall-clock time of the study's executions in all, as `2h` or `1h30m`; by default the file's.
        progress: show how it goes, on standard error or in the notebook.

    Raises:
        AblationError: the study cannot be run as it is; see `ablation.pipeline.run_study`.
        KeyboardInterrupt: it was interrupted; what ended is kept.
    """
    from ablation.api.running import Execution, execute, interruptible
    from ablation.api.studies import checked_study
    from ablation.code import is_importing
    from ablation.output import remark

    if is_importing():
        raise StudyWithin
    check_switches(progress=progress)
    execution = Execution(
        device=device,
        executor=executor,
        is_open=insecure_network,
        workers=workers,
        fuse=fuse,
        cudnn_benchmark=cudnn_benchmark,
        storage=storage,
        retry_failed=retry_failed,
        is_fresh=fresh,
        is_reused=reuse,
        budget=budget,
    )
    study = checked_study(file, seeds=seeds, changes={} if set is None else set, name=name)
    with launch_kept(), interruptible():
        tracker = tracker_at(tracking_uri, is_launched=True)
        state, say = state_at(state_dir), remark if progress else lambda _: None
        outcome = execute(study, execution, tracker=tracker, state=state, is_quiet=not progress, say=say)
    return StudyResult.of(outcome, tracker)


def open(  # noqa: A001 - as ablation.open
    name: str,
    *,
    metric: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    meaningful: float | None = None,
    alpha: float | None = None,
    tracking_uri: str | None = None,
) -> StudyResult:
    """Return what a recorded study came to, from MLflow alone: `ablation summarize NAME`.

    Args:
        metric: judge by this one; as with `meaningful` and `alpha`, another than the locked one is a deviation.
        metrics: metrics to compute from the outputs that the runs kept, as a study file has them:
            `{"f1": {"function": "metrics.py:f1", "direction": "maximize"}}`. The first is judged by, unless `metric`
            names one.
        meaningful: what is below is too small to matter, in the metric's unit (a fraction, nats, seconds).
        alpha: family-wise error rate.

    Raises:
        AblationError: there is no such study or metric, or MLflow cannot be reached.
    """
    check_kind("name", name, kind="study")
    check_kind("metric", metric, is_optional=True)
    check_kind("metrics", metrics, is_optional=True)
    check_above_zero("meaningful", meaningful)
    check_above_zero("alpha", alpha, below=1)
    tracker = tracker_at(tracking_uri)
    from ablation.analysis import RuleChange
    from ablation.api.asked import asked_of

    change = RuleChange(metric=metric, meaningful=meaningful, alpha=alpha)
    return StudyResult.recorded(name, tracker, change=change, asked=asked_of(metrics))


def plan(
    file: StudyFile,
    *,
    seeds: Seeds | None = None,
    set: Mapping[str, Any] | None = None,  # noqa: A002 - as the option
    name: str | None = None,
    device: str = "auto",
    noise: float | None = None,
    noise_from: str | None = None,
    tracking_uri: str | None = None,
    state_dir: str | PathLike[str] | None = None,
) -> Preview:
    """Return a study before it costs anything: variants, cost, what differences it can find: `ablation plan FILE`.

    Args:
        noise: SD of one variant's runs from seed to seed, as the report shows the metric: 0.7 is 0.7 points. Of a
            training function of your own, as it returns the metric.
        noise_from: a recorded study that it is taken from, in MLflow's store at `tracking_uri`.

    Raises:
        AblationError: the study cannot be run as it is, or the noise is unknown; see `ablation.preview.preview_study`.
    """
    from ablation.api.studies import Noise, checked_study, preview

    study = checked_study(file, seeds=seeds, changes={} if set is None else set, name=name)
    source = Noise(value=noise, study=noise_from, tracking_uri=tracking_uri)
    return preview(study, device, state_at(state_dir), source)


def compare(
    study: str | StudyResult,
    first: Levels,
    second: Levels,
    *,
    second_study: str | StudyResult | None = None,
    tracking_uri: str | None = None,
) -> Comparison:
    """Compare two variants of a study, or of two studies, second minus first: `ablation compare`.

    `judged` is the verdict on the primary metric, at alpha over all pairs of variants; `metrics` are all metrics, with
    unadjusted intervals. Runs of two studies are paired by seed where a seed means the same in both: `pairing` says so.

    Args:
        study: a recorded study that has the first variant.
        first: a variant's name, or its levels by their factors; those left out are the baseline's.
        second: likewise.
        second_study: the study that has the second variant, where it is another one.

    Raises:
        AblationError: there is no such study or variant, two studies are judged on different metrics, or MLflow cannot
            be reached.
    """
    from ablation.api.variants import variant_name
    from ablation.pipeline import compare_across, compare_study, find_study

    places = [_place(one, tracking_uri) for one in (study, study if second_study is None else second_study)]
    plans = [find_study(name, tracker=tracker).plan for name, tracker in places]
    names = [variant_name(plan, levels, at="compare") for plan, levels in zip(plans, (first, second), strict=True)]
    (name, tracker), (other, other_tracker) = places
    addresses = [getattr(each, "tracking_uri", each) for each in (tracker, other_tracker)]
    if name == other and addresses[0] == addresses[1]:
        return compare_study(name, *names, tracker=tracker)
    return compare_across((name, names[0], tracker), (other, names[1], other_tracker))


def load_model(
    study: str | StudyResult,
    *,
    variant: Levels,
    seed: int,
    tracking_uri: str | None = None,
    code: Trusted = (),
) -> nn.Module:
    """Return a run's trained model from MLflow, in evaluation mode and on the CPU.

    Args:
        variant: its name, or its levels by their factors; those left out are the baseline's.
        code: what is trusted to be imported, where the model is made by code of your own: its folder, or the name of
            installed code, or several of them. By default nothing is. A warning says where the run was trained with
            other code than that of its model now.

    Raises:
        AblationError: there is no such run, it keeps no model, or its code is not trusted.
    """
    from ablation.api.trained import trained_model
    from ablation.pipeline import find_study

    name, tracker = _place(study, tracking_uri)
    record = find_study(name, tracker=tracker)
    return trained_model(record, tracker, variant=variant, seed=seed, trusted=code)


def _place(study: str | StudyResult, tracking_uri: str | None) -> tuple[str, Tracker]:
    """Return a study's name, and the tracker that it is read from."""
    if isinstance(study, StudyResult):
        return study.name, study.tracker
    check_kind("study", study)
    return study, tracker_at(tracking_uri)
