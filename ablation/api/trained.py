"""Gives a run's trained model back: built anew from what is recorded of the run, with the state that it left in MLflow.

What MLflow returns is data. Code that a recorded study names is imported where the caller trusts it by name or by its
folder, and not otherwise; a state is read as tensors and plain values alone.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablation.api.arguments import check_kind
from ablation.api.variants import variant_name
from ablation.code import CodeFolders, code_names, is_code
from ablation.errors import CodeUntrusted, ModelNotKept
from ablation.records import (
    EVALUATION_FILE,
    MODEL_FILE,
    SCALE_DETAILS,
    ModelSettings,
    Outcome,
    RecordedRun,
    RunEvaluation,
    Settings,
)

if TYPE_CHECKING:
    from torch import nn

    from ablation.records import Plan
    from ablation.tracking import StudyRecord, Tracker

    Trusted = str | PathLike[str] | Sequence[str | PathLike[str]]
    """A folder, whose code may be imported, the name of installed code that may be, or several of them."""

SPARE_BYTES = 2**20
"""What a file of a state has beside its tensors, at most, for each of them a little."""


def trained_model(
    record: StudyRecord, tracker: Tracker, *, variant: str | Mapping[str, Any], seed: int, trusted: Trusted
) -> nn.Module:
    """Return the model of a run in evaluation mode, on the CPU; the generators of random numbers stay as they are.

    That of a regression whose targets were standardized answers in the unit of the targets, by a forward hook.

    Raises:
        NameUnknown, ModelNotKept: there is no such run, or it keeps no model, and which there are.
        ArgumentInvalid: an argument is of a wrong type.
        CodeUntrusted: code that is not trusted would be imported for it.
        ModelInvalid, ComponentInvalid, CodeInvalid: it cannot be built here.
    """
    plan = record.plan
    name = variant_name(plan, variant, at="variant")
    run = _finished_run(record, tracker, name, seed)
    settings = plan.variant(name).settings
    if settings.model is None:
        raise ModelNotKept(plan.name, f"no model is recorded of variant {name!r}")
    code = _trusted_code(plan, settings.model, trusted)
    _compare_code(code, settings, plan.code.get(name), run)
    model = _built(settings.model, plan, code, name)
    _load_state(model, run, plan, tracker)
    if settings.data is not None and settings.data.task == "regression" and settings.data.target_scaling != "none":
        _scale_back(model, run, plan, tracker)
    return model.eval()


def _finished_run(record: StudyRecord, tracker: Tracker, variant: str, seed: int) -> RecordedRun:
    plan = record.plan
    if plan.is_own_training:
        raise ModelNotKept(plan.name, "its training function keeps its own models, and none is recorded")
    recorded = tracker.recorded_runs(record, with_details=False)
    runs = {run.planned.seed: run for run in recorded if run.planned.variant == variant}
    if not isinstance(seed, Integral) or isinstance(seed, bool) or seed not in runs:
        raise ModelNotKept(plan.name, f"variant {variant!r} has no seed {seed!r}; it has {', '.join(map(str, runs))}")
    run = runs[seed]
    if run.outcome is not Outcome.DONE:
        done = ", ".join(str(each) for each, one in runs.items() if one.outcome is Outcome.DONE)
        state = run.outcome.value if run.outcome is not None else "not finished"
        raise ModelNotKept(plan.name, f"run {run.planned.name} is {state}; finished are seeds: {done or 'none'}")
    return run


def _trusted_code(plan: Plan, settings: ModelSettings, trusted: Trusted) -> CodeFolders:
    """Return where a model's code is looked for.

    Raises:
        CodeUntrusted: it is neither in a trusted folder nor trusted by its name.
    """
    check_kind("code", trusted)
    given = [trusted] if isinstance(trusted, str | PathLike) else list(trusted)
    named = {fspath(one) for one in given if is_code(fspath(one))}
    folders = tuple(Path(one).resolve() for one in given if fspath(one) not in named)
    code = CodeFolders(folders=folders)
    for name in filter(is_code, (settings.name, *settings.replace.values())):
        file = code.file(name)
        is_within = file is not None and any(file.is_relative_to(folder) for folder in folders)
        if not is_within and name not in named:
            raise CodeUntrusted(plan.name, name, folders)
    return code


def _compare_code(code: CodeFolders, settings: Settings, digest: str | None, run: RecordedRun) -> None:
    """Warn where a run was trained with other code than is there now.

    A digest is of all the code that a variant names, so nothing can be compared where it names more than its model's.
    """
    assert settings.model is not None
    names = tuple(code_names(settings))
    of_model = {settings.model.name, *settings.model.replace.values()}
    if digest is None or not of_model.issuperset(names) or code.digest(names) == digest:
        return
    warnings.warn(
        f"run {run.planned.name} was trained with other code than {', '.join(names)} is now, or with other versions of "
        "what it imports: the model may answer differently. The study's report keeps a copy of that code in code/",
        stacklevel=4,
    )


def _built(settings: ModelSettings, plan: Plan, code: CodeFolders, variant: str) -> nn.Module:
    import torch

    from ablation.models import build_model

    with torch.random.fork_rng(devices=()):
        try:
            return build_model(settings, plan.data_of(variant).shape, code=code)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = f"its recorded settings build no model here: {type(error).__name__}: {error}"
            raise ModelNotKept(plan.name, reason) from error


def _load_state(model: nn.Module, run: RecordedRun, plan: Plan, tracker: Tracker) -> None:
    import torch

    state = model.state_dict()
    limit = 2 * sum(value.numel() * value.element_size() for value in state.values()) + SPARE_BYTES + 4096 * len(state)
    content, problem = tracker.run_file(str(run.run_id), MODEL_FILE, limit=limit)
    if content is None:
        raise ModelNotKept(plan.name, f"run {run.planned.name}: {problem or f'MLflow has no {MODEL_FILE} of it'}")
    try:
        model.load_state_dict(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except Exception as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        reason = f"{MODEL_FILE} of run {run.planned.name} does not fit the model: {said}"
        raise ModelNotKept(plan.name, reason) from error


def _scale_back(model: nn.Module, run: RecordedRun, plan: Plan, tracker: Tracker) -> None:
    """Let a model answer in the unit of its targets.

    Raises:
        ModelNotKept: it is not recorded by what they were standardized.
    """
    import torch

    content, problem = tracker.run_file(str(run.run_id), EVALUATION_FILE, limit=SPARE_BYTES)
    try:
        details = RunEvaluation.from_json((content or b"").decode()).details
        shape = plan.data_of(run.planned.variant).shape.target_shape
        mean, deviation = (torch.tensor(details[name]).reshape(shape or (1,)) for name in SCALE_DETAILS)
    except (KeyError, ValueError, RuntimeError):
        reason = problem or f"{EVALUATION_FILE} of run {run.planned.name} does not say how targets were standardized"
        raise ModelNotKept(plan.name, reason) from None
    model.register_forward_hook(lambda _module, _inputs, outputs: outputs * deviation + mean)
