"""Builds small plans and recorded runs for tests, without a study file and without training."""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ablation.records import (
    DETAILS,
    TASKS,
    DataFacts,
    DataSettings,
    DataShape,
    EngineTraining,
    Layer,
    Locked,
    LockedMetric,
    LockedQuestion,
    Metric,
    ModelSettings,
    ModelSummary,
    Outcome,
    Plan,
    PlannedRun,
    RecordedRun,
    Settings,
    TaskName,
    Variant,
)
from ablation.study import Study
from ablation.study.identity import locked_hash, run_identity
from ablation.study.level_names import variant_name

FACTORS: Mapping[str, Sequence[Any]] = {"model.depth": (2, 3), "model.normalization": ("none", "batch")}
DIGEST = hashlib.sha256(b"a data set").hexdigest()
CLASSES = ("zero", "one", "two", "three")
LARGEST_CLASS_SHARE = 0.28
COLLAPSE_MARGIN = 0.02
TRAINING = EngineTraining(
    epochs=4,
    batch_size=64,
    optimizer="adam",
    learning_rate=1e-3,
    schedule="constant",
    momentum=0.9,
    weight_decay=0.0,
)
Accuracy = Callable[[Variant, int], float]


def make_plan(
    *,
    name: str = "quick",
    description: str = "",
    factors: Mapping[str, Sequence[Any]] = FACTORS,
    baseline: Mapping[str, Any] | None = None,
    seeds: int = 5,
    locked_seeds: int | None = None,
    metric: Mapping[str, Any] | None = None,
    questions: Sequence[Mapping[str, Any]] | None = None,
    alpha: float = 0.05,
    validation: float | str = "none",
    classes: tuple[str, ...] = CLASSES,
    shape: DataShape | None = None,
    deviations: tuple[str, ...] = (),
) -> Plan:
    """Make the plan of a factorial study; the baseline has each factor's first level unless `baseline` says otherwise.

    `questions` default to one per factor, `metric` to test accuracy with a ROPE of 0.005.
    """
    baseline_levels = baseline or {factor: levels[0] for factor, levels in factors.items()}
    assignments = [dict(zip(factors, levels, strict=True)) for levels in itertools.product(*factors.values())]
    ordered = sorted(assignments, key=lambda levels: levels != baseline_levels)
    variants = tuple(
        _variant(levels, validation=validation, is_baseline=levels == baseline_levels) for levels in ordered
    )
    study = {
        "name": name,
        "description": description,
        "data": {"name": "digits", "validation": validation},
        "model": {"name": "cnn"},
        "training": {"epochs": 4},
        "factors": {factor: list(levels) for factor, levels in factors.items()},
        "seeds": seeds,
    }
    locked = Locked(
        seeds=seeds if locked_seeds is None else locked_seeds,
        metric=LockedMetric(**(metric or {"name": "test_accuracy", "direction": "maximize", "meaningful": 0.005})),
        questions=tuple(
            LockedQuestion(**question) for question in (questions or [{"effect": factor} for factor in factors])
        ),
        alpha=alpha,
        collapse_margin=COLLAPSE_MARGIN,
    )
    return Plan(
        study=study,
        variants=variants,
        summaries={variant.name: _summary(index) for index, variant in enumerate(variants)},
        runs=tuple(
            PlannedRun(
                identity=run_identity(variant.configuration, data_digest=DIGEST, seed=seed),
                variant=variant.name,
                seed=seed,
            )
            for seed in range(seeds)
            for variant in variants
        ),
        data=DataFacts(
            name="digits",
            digest=DIGEST,
            shape=shape or DataShape(channels=1, height=8, width=8, classes=classes),
            train_images=1437,
            test_images=360,
            largest_class_share=LARGEST_CLASS_SHARE,
        ),
        locked=locked,
        locked_hash=locked_hash(locked),
        deviations=deviations,
    )


def noisy_accuracy(variant: Variant, seed: int) -> float:
    """Return an accuracy near 0.8, better with batch norm, the same at every call."""
    gain = 0.03 if "batch" in variant.levels.values() else 0.0
    return 0.8 + gain + 0.004 * float(_noise(variant.name, seed).standard_normal())


def make_runs(
    plan: Plan,
    *,
    accuracy: Accuracy = noisy_accuracy,
    outcomes: Mapping[tuple[str, int], Outcome | None] | None = None,
    device: str = "cpu",
    host: str = "bench",
) -> list[RecordedRun]:
    """Record every planned run as done with this test accuracy, but for the outcomes given by (variant, seed)."""
    variants = {variant.name: variant for variant in plan.variants}
    made = []
    for planned in plan.runs:
        outcome = (outcomes or {}).get((planned.variant, planned.seed), Outcome.DONE)
        value = accuracy(variants[planned.variant], planned.seed)
        made.append(_run(plan, planned, outcome, value, device=device, host=host))
    return made


TASK_SHAPES: Mapping[TaskName, DataShape] = {
    "classification": DataShape(channels=1, height=8, width=8, classes=CLASSES),
    "regression": DataShape(channels=0, height=0, width=0, classes=(), features=(6,), task="regression"),
    "multilabel": DataShape(
        channels=0,
        height=0,
        width=0,
        classes=("red", "round", "old"),
        features=(6,),
        task="multilabel",
        target_shape=(3,),
    ),
    "tokens": DataShape(
        channels=0, height=0, width=0, classes=CLASSES, features=(16,), task="tokens", target_shape=(16,), vocabulary=4
    ),
    "segmentation": DataShape(
        channels=3, height=8, width=8, classes=("sky", "road", "tree"), task="segmentation", target_shape=(8, 8)
    ),
}


def make_task_plan(task: TaskName, **arguments: Any) -> Plan:
    """Make the plan of a study of a task, judged on the task's usual metric."""
    name = TASKS[task].default_metric
    known = TASKS[task].metrics[name]
    metric = {"name": name, "direction": known.direction, "meaningful": known.meaningful}
    plan = make_plan(**{"metric": metric, "shape": TASK_SHAPES[task], **arguments})
    data = {"name": "own.py:load", "validation": "none", **({} if task == "classification" else {"task": task})}
    variants = tuple(dataclasses.replace(each, settings=_of_task(each.settings, task)) for each in plan.variants)
    return dataclasses.replace(
        plan, study={**plan.study, "data": data}, variants=variants, measured=tuple(TASKS[task].metrics)
    )


def _of_task(settings: Settings, task: TaskName) -> Settings:
    assert settings.data is not None
    return dataclasses.replace(settings, data=dataclasses.replace(settings.data, task=task))


def make_task_runs(plan: Plan, *, skill: Accuracy = noisy_accuracy) -> list[RecordedRun]:
    """Record every run of such a plan as done: better, on all that the task measures, the more `skill` it has."""
    variants = {variant.name: variant for variant in plan.variants}
    return [_task_run(plan, planned, skill(variants[planned.variant], planned.seed)) for planned in plan.runs]


def _task_run(plan: Plan, planned: PlannedRun, skill: float) -> RecordedRun:
    task, shape, noise = TASKS[plan.task], plan.data.shape, _noise(planned.variant, planned.seed, "task")
    of = {name: _of_skill(metric, skill) for name, metric in task.metrics.items()}
    epochs, splits = range(1, 5), ("train", "train_sample", plan.heldout_split)
    curves = {
        f"{split}_{name}": tuple((epoch, value * (0.9 + 0.025 * epoch)) for epoch in epochs)
        for split in splits
        for name, value in {"loss": of["test_loss"], task.score: of[f"test_{task.score}"]}.items()
    }
    spread = (-3.0, -1.6, -0.7, 0.0, 0.7, 1.6, 3.0)
    details = {
        "error_quantiles": tuple(30_000 * (1 - skill) * at + 100 * noise.random() for at in spread),
        "f1": tuple(skill - 0.1 * place for place in range(len(shape.classes))),
        "iou": tuple(skill - 0.1 * place for place in range(len(shape.classes))),
    }
    return RecordedRun(
        planned=planned,
        run_id=f"run-{planned.identity[:8]}",
        outcome=Outcome.DONE,
        metrics={**of, "training_seconds": 8.0 + noise.random(), "peak_memory_mib": 120.0},
        curves={**curves, "epoch_seconds": tuple((epoch, 2.0) for epoch in epochs)},
        confusion={split: _pixels(skill) for split in ("train", "test")} if plan.task == "segmentation" else {},
        constant_share=None if plan.task == "segmentation" else 0.3,
        details={name: details[name] for name in DETAILS[plan.task]},
        device="cpu",
        host="bench",
        commit="0123456789abcdef0123456789abcdef01234567",
        versions={"torch": "2.15.0", "mlflow": "3.17.2"},
    )


def _of_skill(metric: Metric, skill: float) -> float:
    if metric.unit == "target":
        return 30_000 * (1 - skill)
    return skill if metric.direction == "maximize" else 2 * (1 - skill)


def _pixels(skill: float) -> tuple[tuple[int, ...], ...]:
    right = round(9000 * skill)
    wrong = 9000 - right
    return ((right, wrong, 0), (0, right, wrong), (wrong, 0, right))


def _variant(levels: Mapping[str, Any], *, validation: float | str, is_baseline: bool) -> Variant:
    data, model = DataSettings(name="digits", validation=validation), ModelSettings(name="cnn")
    return Variant(
        name=variant_name(levels, list(levels)),
        levels=dict(levels),
        settings=Settings(data=data, model=model, training=TRAINING, study_seed=0),
        configuration={
            "data": {"name": "digits", "validation": validation},
            "model": {"name": "cnn"},
            "levels": dict(levels),
        },
        is_baseline=is_baseline,
    )


def _summary(index: int) -> ModelSummary:
    layers = [
        Layer(name="blocks.block1.convolution", type="Conv2d", parameters=80, output_shape=(8, 8, 8)),
        *(
            Layer(name=f"blocks.block{block}.convolution", type="Conv2d", parameters=1168, output_shape=(16, 2, 2))
            for block in range(2, 2 + index)
        ),
        Layer(name="dense.output", type="Linear", parameters=330, output_shape=(10,)),
    ]
    parameters = sum(layer.parameters for layer in layers)
    return ModelSummary(parameters=parameters, flops=40 * parameters, layers=tuple(layers))


def _run(
    plan: Plan, planned: PlannedRun, outcome: Outcome | None, accuracy: float, *, device: str, host: str
) -> RecordedRun:
    if outcome is None:
        return RecordedRun(planned=planned, run_id=None, outcome=None, metrics={}, curves={}, confusion={})
    is_done = outcome is Outcome.DONE
    return RecordedRun(
        planned=planned,
        run_id=f"run-{planned.identity[:8]}",
        outcome=outcome,
        metrics=_metrics(planned, accuracy) if is_done else {},
        curves=_curves(plan, planned, accuracy) if outcome is not Outcome.FAILED else {},
        confusion={"train": _confusion(0.9, 40), "test": _confusion(accuracy, 25)} if is_done else {},
        test_correct=_test_correct(planned, accuracy) if is_done else "",
        device=device,
        host=host,
        commit="0123456789abcdef0123456789abcdef01234567",
        versions={"torch": "2.15.0", "mlflow": "3.17.2"},
        error="Traceback (most recent call last):\nRuntimeError: lost | worker" if outcome is Outcome.FAILED else None,
        diverged_epoch=2 if outcome is Outcome.DIVERGED else None,
    )


def _metrics(planned: PlannedRun, accuracy: float) -> dict[str, float]:
    noise = _noise(planned.variant, planned.seed, "metrics")
    train_loss, loss = 0.3 + 0.02 * noise.random(), 1.2 - 0.8 * accuracy + 0.01 * noise.random()
    return {
        "test_accuracy": accuracy,
        "test_loss": loss,
        "test_brier_score": 0.4 * loss + 0.01 * noise.random(),
        "learning_curve_area": accuracy - 0.1 - 0.005 * noise.random(),
        "final_train_accuracy": 0.95 + 0.01 * noise.random(),
        "final_train_loss": train_loss,
        "generalization_gap": loss - train_loss,
        "training_seconds": 8.0 + noise.random(),
        "peak_memory_mib": 120.0,
    }


def _curves(plan: Plan, planned: PlannedRun, accuracy: float) -> dict[str, tuple[tuple[int, float], ...]]:
    noise = _noise(planned.variant, planned.seed, "curves")
    epochs = range(1, 5)
    pace = 0.6 - 0.4 * (accuracy - 0.8)
    risen = [1 - pace**epoch + 0.01 * noise.random() for epoch in epochs]
    series = {
        "train_loss": [1.5 - 1.2 * rise for rise in risen],
        "train_accuracy": [0.2 + 0.75 * rise for rise in risen],
        "train_sample_loss": [1.4 - 1.2 * rise for rise in risen],
        "train_sample_accuracy": [0.25 + 0.75 * rise for rise in risen],
        f"{plan.heldout_split}_loss": [1.5 - accuracy * rise + 0.02 * noise.random() for rise in risen],
        f"{plan.heldout_split}_accuracy": [0.2 + (accuracy - 0.2) * rise for rise in risen],
        "epoch_seconds": [2.0 + 0.1 * noise.random() for _ in epochs],
    }
    return {name: tuple(zip(epochs, values, strict=True)) for name, values in series.items()}


def _test_correct(planned: PlannedRun, accuracy: float) -> str:
    """Return answers to 100 test images, right on about this share of them; some images are hard for all."""
    hardness = np.random.default_rng(1).random(100)
    drawn = 0.7 * hardness + 0.3 * _noise(planned.variant, planned.seed, "answers").random(100)
    return "".join("1" if value < accuracy else "0" for value in drawn)


def _confusion(accuracy: float, images: int) -> tuple[tuple[int, ...], ...]:
    """Return counts of four classes with `images` of each; the wrong answers name the next class.

    A model at chance always answers the first class.
    """
    if accuracy <= LARGEST_CLASS_SHARE + COLLAPSE_MARGIN:
        return ((images, 0, 0, 0),) * len(CLASSES)
    right = round(max(0.0, min(1.0, accuracy)) * images)
    size = len(CLASSES)
    return tuple(
        tuple(right if true == guess else images - right if guess == (true + 1) % size else 0 for guess in range(size))
        for true in range(size)
    )


def _noise(variant: str, seed: int, purpose: str = "accuracy") -> np.random.Generator:
    digest = hashlib.sha256(f"{variant}/{seed}/{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def plan_of(study: Study, *, classes: tuple[str, ...] = CLASSES) -> Plan:
    """Make the plan of a checked study, as if its data set were small and its models of two sizes."""
    locked = study.locked()
    return Plan(
        study=study.spec.document(),
        variants=study.variants,
        summaries={variant.name: _summary(index) for index, variant in enumerate(study.variants)},
        runs=study.runs(data_digest=DIGEST),
        data=DataFacts(
            name="digits",
            digest=DIGEST,
            shape=DataShape(channels=1, height=8, width=8, classes=classes),
            train_images=1437,
            test_images=360,
            largest_class_share=LARGEST_CLASS_SHARE,
        ),
        locked=locked,
        locked_hash=locked_hash(locked),
    )
