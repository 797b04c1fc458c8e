"""Measures how often studies in which nothing differs are judged wrongly, from run table to verdict.

    python -m benchmarks.error_rates --output benchmarks/results

Every simulated study has runs whose test accuracies are drawn at random and nothing else; each rate counts the studies
with at least one wrong verdict, and comes with its standard error.

null: depth × normalization, two averaged effects and their interaction, at a family-wise error rate of 5 %.
shared seeds: the same, half of the variance shared by all variants of a seed.
unequal spreads: one variant varies ten times as much as the others.
skewed: one variant's differences are exponential.
placebo: one factor that does nothing.
grown: locked with 3 seeds, grown to 5, 8 and 12; wrong if any of the grown studies has a verdict.
grown, first look too: wrong also if the study of 3 seeds had one, before it grew.
naive looks: each of the four judged as if it were the only one; the tool does not do this.
"""

import argparse
import datetime
import itertools
import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ablation.analysis.answers import answers
from ablation.analysis.table import run_table
from ablation.records import (
    DataFacts,
    DataShape,
    EngineTraining,
    Locked,
    LockedMetric,
    LockedQuestion,
    ModelSummary,
    Outcome,
    Plan,
    PlannedRun,
    RecordedRun,
    Settings,
    Variant,
)

ALPHA = 0.05
UNUSED = Settings(
    data=None,
    model=None,
    training=EngineTraining(
        epochs=1,
        batch_size=2,
        optimizer="adam",
        learning_rate=1e-3,
        schedule="constant",
        momentum=0.9,
        weight_decay=0.0,
    ),
    study_seed=0,
)
LOOKS = (3, 5, 8, 12)
FACTORS = {"model.depth": (3, 4), "model.normalization": ("none", "batch")}
Draw = Callable[[np.random.Generator, int, int], np.ndarray]


def make_plan(factors: dict[str, tuple[object, ...]], *, seeds: int, locked_seeds: int) -> Plan:
    """Return the plan of a factorial study that asks after every factor, and after the interaction of two."""
    levels = [dict(zip(factors, each, strict=True)) for each in itertools.product(*factors.values())]
    variants = tuple(
        Variant(
            name=",".join(map(str, each.values())),
            levels=each,
            settings=UNUSED,
            configuration={},
            is_baseline=index == 0,
        )
        for index, each in enumerate(levels)
    )
    effects = tuple(LockedQuestion(effect=factor) for factor in factors)
    first, *second = factors
    between = tuple(LockedQuestion(interaction=(first, other)) for other in second if len(factors) == 2)
    return Plan(
        study={"name": "null", "data": {"validation": "none"}, "factors": factors},
        variants=variants,
        summaries={variant.name: ModelSummary(parameters=1, flops=1, layers=()) for variant in variants},
        runs=tuple(
            PlannedRun(identity=f"{variant.name}/{seed}", variant=variant.name, seed=seed)
            for seed in range(seeds)
            for variant in variants
        ),
        data=DataFacts(
            name="none",
            digest="",
            shape=DataShape(channels=1, height=1, width=1, classes=("a", "b")),
            train_images=1,
            test_images=1,
            largest_class_share=0.1,
        ),
        locked=Locked(
            seeds=locked_seeds,
            metric=LockedMetric(name="test_accuracy", direction="maximize"),
            questions=(*effects, *between),
            alpha=ALPHA,
            collapse_margin=0.02,
        ),
        locked_hash="",
    )


def is_wrong(plan: Plan, values: np.ndarray) -> bool:
    """Tell whether any question gets a verdict of a difference; `values` are accuracies (seeds, variants)."""
    column = {variant.name: index for index, variant in enumerate(plan.variants)}
    runs = [
        RecordedRun(
            planned=run,
            run_id=run.identity,
            outcome=Outcome.DONE,
            metrics={"test_accuracy": float(value), "test_loss": float(value)},
            curves={},
            confusion={},
        )
        for run in plan.runs
        for value in [values[run.seed, column[run.variant]]]
    ]
    judged = answers(plan, run_table(plan, runs), {})
    return any(answer.verdict.is_decided for answer in judged)


def normal(random: np.random.Generator, seeds: int, variants: int) -> np.ndarray:
    return 0.8 + 0.01 * random.standard_normal((seeds, variants))


def shared_seeds(random: np.random.Generator, seeds: int, variants: int) -> np.ndarray:
    own, shared = random.standard_normal((seeds, variants)), random.standard_normal((seeds, 1))
    return 0.8 + 0.01 * math.sqrt(0.5) * (own + shared)


def unequal_spreads(random: np.random.Generator, seeds: int, variants: int) -> np.ndarray:
    spreads = np.full(variants, 0.005)
    spreads[-1] = 0.05
    return 0.8 + spreads * random.standard_normal((seeds, variants))


def skewed(random: np.random.Generator, seeds: int, variants: int) -> np.ndarray:
    values = np.full((seeds, variants), 0.8)
    values[:, -1] += 0.01 * (random.standard_exponential(seeds) - 1)
    return values + 1e-4 * random.standard_normal((seeds, variants))


def single(factors: dict[str, tuple[object, ...]], seeds: int, draw: Draw) -> Callable[[np.random.Generator], bool]:
    plan = make_plan(factors, seeds=seeds, locked_seeds=seeds)
    return lambda random: is_wrong(plan, draw(random, seeds, len(plan.variants)))


def looks(counted: tuple[int, ...], *, locked_seeds: int | None) -> Callable[[np.random.Generator], bool]:
    """Return a study that is looked at with each of these numbers of seeds; None locks it with as many each time."""
    factors = {"placebo": (0, 1)}
    plans = [make_plan(factors, seeds=seeds, locked_seeds=locked_seeds or seeds) for seeds in counted]

    def study(random: np.random.Generator) -> bool:
        values = normal(random, LOOKS[-1], 2)
        return any(is_wrong(plan, values) for plan in plans)

    return study


def studies() -> Iterator[tuple[str, Callable[[np.random.Generator], bool]]]:
    for seeds in (3, 5, 10):
        yield f"null, {seeds} seeds", single(FACTORS, seeds, normal)
    yield "shared seeds, 5 seeds", single(FACTORS, 5, shared_seeds)
    yield "unequal spreads, 5 seeds", single(FACTORS, 5, unequal_spreads)
    yield "skewed, 5 seeds", single(FACTORS, 5, skewed)
    yield "placebo, 5 seeds", single({"placebo": (0, 1)}, 5, normal)
    yield "grown from 3 to 5, 8, 12 seeds", looks(LOOKS[1:], locked_seeds=LOOKS[0])
    yield "grown, first look too", looks(LOOKS, locked_seeds=LOOKS[0])
    yield "naive looks at 3, 5, 8, 12", looks(LOOKS, locked_seeds=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2_000, help="simulated studies of each kind")
    parser.add_argument("--output", type=Path, help="folder for a dated JSON file")
    arguments = parser.parse_args()
    results = []
    for name, study in studies():
        begun, random = time.perf_counter(), np.random.default_rng(2026)
        rate = sum(study(random) for _ in range(arguments.repetitions)) / arguments.repetitions
        error = math.sqrt(max(rate * (1 - rate), 1e-9) / arguments.repetitions)
        results.append({"study": name, "wrong": rate, "standard_error": error, "repetitions": arguments.repetitions})
        print(f"{name:32} {100 * rate:5.2f} % ± {100 * error:.2f} ({time.perf_counter() - begun:.0f} s)", flush=True)
    if arguments.output is not None:
        now = datetime.datetime.now(tz=datetime.UTC)
        versions = {name: version(name) for name in ("numpy", "scipy", "pandas")}
        document = {
            "made": now.isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "versions": versions,
            "alpha": ALPHA,
            "results": results,
        }
        path = arguments.output / f"error-rates-{now:%Y-%m-%d-%H%M%S}.json"
        path.write_text(json.dumps(document, indent=1) + "\n")
        print(f"Wrote {path}")


if __name__ == "__main__":
    main()
