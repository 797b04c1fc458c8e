"""Measures how often planned looks judge wrongly, what they find, and how many runs they take; nothing is trained.

    python -m benchmarks.error_rates --output benchmarks/results

A simulated study compares m variants with one baseline. What its runs would measure is drawn at random; the rule asks
for runs look by look, and its verdicts are held to the truth that was drawn from. Each cell has one kind of study:

- `null`: no variant differs. `half`: half of them differ by 2 SD. `mixed`: 0, 0.5, 1 and 2 SD in turn. `at the ROPE`:
  all differ by exactly what matters, up and down in turn; `and far beyond`: half of them by four times as much, which
  passes the most alpha on. SDs are those of a difference.
- `normal`: all runs have the same SD. `SDs 1 to 7`: the variants' SDs lie that far apart. `χ²`: differences are as
  skewed as a χ² of 6 degrees of freedom, which no t interval bears. `χ² variants`: these are, against a normal
  baseline. `t`: runs have 3 degrees of freedom. `lognormal`: runs are that. `discrete`: accuracies on 360 images.
- `grown`: fewer looks are planned, and the seeds of the others are added beyond the plan, which may cost a fifth of
  alpha more.

A study is wrong with any wrong verdict: a difference where there is none or the other way round, "too small" of an
effect that is not smaller than the ROPE, "meaningfully" of one that is not larger. Runs and power stand beside those of
the same study with the last look's seeds alone, `fixed`, and beside the rule without its floor below 8 seeds. Some
studies of each cell go the whole way, from the plan to the answers, their runs ending one by one in any order; they
must come to the same verdicts and runs.
"""

import argparse
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ablation.analysis import StudyLooks, Verdict, run_table, sequential
from ablation.analysis.answers import answers
from ablation.analysis.sequential import Asked, Rule, Standing, State, judged
from ablation.analysis.verdicts import is_meaningful
from ablation.coordinator.looks import LooksUnderWay
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
from benchmarks.machine import environment, write_record

ALPHA = 0.05
SD, MIDDLE = 0.01, 0.8
"""Of the runs' accuracies."""
SPREAD = math.sqrt(2)
SCHEDULES = ((3, 5, 8, 12), (5, 8, 12, 20), (5, 10, 20))
IMAGES = 360
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
_IN_ROPES = {"at the ROPE": (1.0, -1.0), "at the ROPE and far beyond": (1.0, 4.0, -1.0, 4.0)}
Array = NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A kind of study; `rope` in SDs of a difference. `planned` looks are those of the plan, all where it is empty."""

    truth: str
    noise: str
    variants: int
    looks: tuple[int, ...]
    rope: float | None
    planned: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        rope = "none" if self.rope is None else f"{self.rope:g} SD"
        looks = ", ".join(map(str, self.looks))
        grown = f", grown from {self.planned[-1]}" if self.planned else ""
        return f"{self.truth}, {self.noise}, m = {self.variants}, looks {looks}{grown}, ROPE {rope}"

    @property
    def rule(self) -> Rule:
        planned = self.planned or self.looks
        growth = tuple(seeds for seeds in self.looks if seeds > planned[-1])
        return Rule(looks=planned, growth=growth, alpha=ALPHA, planned=self.variants, comparisons=self.variants)

    @property
    def effects(self) -> Array:
        """The variants' differences to the baseline, in SDs of a difference or in ROPEs, (variants,)."""
        pattern = {**_IN_ROPES, "null": (0.0,), "half": (0.0, 2.0), "mixed": (0.0, 0.5, 1.0, 2.0)}[self.truth]
        return np.resize(np.array(pattern), self.variants)

    @property
    def sds(self) -> Array:
        """The SD of each comparison's difference, in accuracy, (variants,)."""
        baseline, *variants = self.sds_of_runs
        return np.hypot(variants, baseline)

    @property
    def sds_of_runs(self) -> Array:
        """The SDs of the baseline's and the variants' runs, in accuracy, (1 + variants,)."""
        if self.noise == "discrete":
            return np.full(1 + self.variants, math.sqrt(MIDDLE * (1 - MIDDLE) / IMAGES))
        variants = np.geomspace(1, 7, self.variants) if self.noise == "SDs 1 to 7" else np.ones(self.variants)
        return SD * np.concatenate([[0.0 if self.noise == "χ²" else 1.0], variants])

    @property
    def margin(self) -> float | None:
        """The ROPE in accuracy."""
        return None if self.rope is None else self.rope * float(np.median(self.sds))

    @property
    def differences(self) -> Array:
        """What is true of each comparison, in accuracy, (variants,)."""
        return self.effects * ((self.margin or 0.0) if self.truth in _IN_ROPES else self.sds)

    def draw(self, random: np.random.Generator) -> Array:
        """Return the accuracies of the baseline and the variants, (1 + variants, seeds)."""
        shape = (1 + self.variants, self.looks[-1])
        means = MIDDLE + np.concatenate([[0.0], self.differences])[:, None]
        if self.noise == "discrete":
            return random.binomial(IMAGES, means, size=shape) / IMAGES
        return means + self.sds_of_runs[:, None] * _NOISES[self.noise](random, shape)


def _normal(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return random.standard_normal(shape)


_NOISES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "normal": _normal,
    "SDs 1 to 7": _normal,
    "χ²": lambda random, shape: (random.chisquare(6, shape) - 6) / math.sqrt(12),
    "χ² variants": lambda random, shape: np.concatenate(
        [random.standard_normal((1, shape[1])), (random.chisquare(6, (shape[0] - 1, shape[1])) - 6) / math.sqrt(12)]
    ),
    "t": lambda random, shape: random.standard_t(3, shape) / math.sqrt(3),
    "lognormal": lambda random, shape: (
        (random.lognormal(size=shape) - math.exp(0.5)) / math.sqrt((math.e - 1) * math.e)
    ),
}
"""Noise with a mean of 0 and an SD of 1."""


def cells() -> Iterator[Cell]:
    for looks in SCHEDULES:
        for rope in (None, 0.5, 1.0):
            for variants, truth in ((4, "null"), (2, "half"), (4, "half"), (4, "mixed")):
                yield Cell(truth=truth, noise="normal", variants=variants, looks=looks, rope=rope)
    for looks in SCHEDULES[:2]:
        yield Cell(truth="null", noise="normal", variants=2, looks=looks, rope=None)
        yield Cell(truth="null", noise="normal", variants=8, looks=looks, rope=None)
        yield Cell(truth="half", noise="normal", variants=8, looks=looks, rope=None)
        yield Cell(truth="mixed", noise="normal", variants=8, looks=looks, rope=0.5)
        for variants, rope in ((2, 1.0), (4, 0.5), (4, 1.0), (8, 1.0)):
            yield Cell(truth="at the ROPE", noise="normal", variants=variants, looks=looks, rope=rope)
        for variants in (4, 8):
            yield Cell(truth="at the ROPE and far beyond", noise="normal", variants=variants, looks=looks, rope=1.0)
        for noise in ("SDs 1 to 7", "χ²", "χ² variants", "t", "lognormal", "discrete"):
            yield Cell(truth="null", noise=noise, variants=4, looks=looks, rope=None)
            yield Cell(truth="half", noise=noise, variants=4, looks=looks, rope=1.0)
        yield Cell(truth="at the ROPE", noise="SDs 1 to 7", variants=4, looks=looks, rope=1.0)
    for variants in (2, 4, 8):
        yield Cell(truth="at the ROPE", noise="normal", variants=variants, looks=(12,), rope=1.0)
    for planned, rope in (((5,), None), ((5, 8), 1.0)):
        yield Cell(truth="null", noise="normal", variants=4, looks=(5, 8, 12, 20), rope=rope, planned=planned)
    yield Cell(truth="at the ROPE", noise="normal", variants=4, looks=(5, 8, 12, 20), rope=1.0, planned=(5,))


def family(cell: Cell, values: Array) -> list[Asked]:
    """Return the comparisons of a study whose runs have all ended."""
    return [
        Asked(metric="test_accuracy", rope=cell.margin, spread=SPREAD, seeds=(variant - values[0]).tolist())
        for variant in values[1:]
    ]


def runs_taken(found: Sequence[Standing], first: int) -> int:
    """Return the runs of all variants; the baseline is in every comparison."""
    return max([first, *(each.wanted for each in found)]) + sum(max(first, each.wanted) for each in found)


def is_wrong(standing: Standing, true: float, margin: float | None) -> bool:
    """Tell whether a verdict says what is not true; equal to rounding counts as equal."""
    size, edge = abs(true), margin or 0.0
    if standing.state is State.TOO_SMALL:
        return size >= edge * (1 - 1e-9)
    if standing.state is not State.DIFFERENT or standing.interval is None:
        return False
    if true == 0 or (standing.interval.low > 0) != (true > 0):
        return True
    return bool(is_meaningful(Verdict.HELPS, standing.interval, margin)) and size <= edge * (1 + 1e-9)


@contextmanager
def no_floor() -> Iterator[None]:
    """Judge without the floor, and without what stands in for it below 5 seeds."""
    usual = sequential.FLOORED_BELOW
    sequential.FLOORED_BELOW = 0
    try:
        yield
    finally:
        sequential.FLOORED_BELOW = usual


@dataclass(slots=True, kw_only=True)
class Count:
    """What studies of a cell came to under one rule; found are differences of 1 and 2 SD with their right sign."""

    studies: int = 0
    wrong: int = 0
    wrong_differences: int = 0
    wrong_too_small: int = 0
    runs: int = 0
    found: dict[str, int]
    decided: int = 0

    def add(self, cell: Cell, found: Sequence[Standing]) -> None:
        mistakes = [
            standing.state
            for standing, true in zip(found, cell.differences, strict=True)
            if is_wrong(standing, float(true), cell.margin)
        ]
        self.studies += 1
        self.wrong += bool(mistakes)
        self.wrong_differences += State.DIFFERENT in mistakes
        self.wrong_too_small += State.TOO_SMALL in mistakes
        self.runs += runs_taken(found, cell.looks[0])
        self.decided += sum(each.state.is_decided for each in found)
        for size in self.found:
            self.found[size] += sum(
                each.state is State.DIFFERENT and each.interval is not None and each.interval.low > 0
                for each, effect in zip(found, cell.effects, strict=True)
                if effect == float(size)
            )

    def summary(self, cell: Cell) -> dict[str, Any]:
        rate = self.wrong / self.studies
        having = {size: self.studies * int(np.sum(cell.effects == float(size))) for size in self.found}
        return {
            "wrong": rate,
            "standard_error": math.sqrt(max(rate * (1 - rate), 1 / self.studies) / self.studies),
            "wrong_differences": self.wrong_differences / self.studies,
            "wrong_too_small": self.wrong_too_small / self.studies,
            "runs": self.runs / self.studies,
            "decided": self.decided / self.studies / cell.variants,
            "power": {size: self.found[size] / having[size] for size in having if having[size]},
        }


def measure(cell: Cell, repetitions: int, whole: int) -> dict[str, Any]:
    """Judge simulated studies of a cell; the first `whole` of them go from the plan to the answers too."""
    begun, random = time.perf_counter(), np.random.default_rng(2026)
    sizes = () if cell.truth in _IN_ROPES else ("1", "2")
    planned, fixed, bare = (Count(found=dict.fromkeys(sizes, 0)) for _ in range(3))
    last = Rule(looks=cell.looks[-1:], growth=(), alpha=ALPHA, planned=cell.variants, comparisons=cell.variants)
    has_floor = cell.looks[0] < sequential.FLOORED_BELOW and not cell.planned and cell.truth != "null"
    for repetition in range(repetitions):
        values = cell.draw(random)
        asked = family(cell, values)
        found = judged(asked, cell.rule)
        planned.add(cell, found)
        fixed.add(cell, judged(asked, last))
        if has_floor:
            with no_floor():
                bare.add(cell, judged(asked, cell.rule))
        if repetition < whole:
            check_whole(cell, values, found, random)
    return {
        "cell": cell.name,
        **asdict(cell),
        "repetitions": repetitions,
        "whole_studies": min(whole, repetitions),
        "seconds": time.perf_counter() - begun,
        "planned_looks": planned.summary(cell),
        "fixed": {**fixed.summary(cell), "runs": (1 + cell.variants) * cell.looks[-1]},
        "without_floor": bare.summary(cell) if has_floor else None,
    }


def make_plan(cell: Cell) -> Plan:
    """Return the plan of a study whose factor has a level for the baseline and for each variant."""
    variants = tuple(
        Variant(
            name=f"width={width}",
            levels={"model.width": width},
            settings=UNUSED,
            configuration={},
            is_baseline=width == 0,
        )
        for width in range(1 + cell.variants)
    )
    planned = cell.rule.looks
    levels = {"model.width": list(range(1 + cell.variants))}
    seeds = {"looks": list(cell.looks)} if len(cell.looks) > 1 else cell.looks[0]
    return Plan(
        study={"name": "simulated", "data": {"validation": "none"}, "factors": levels, "seeds": seeds},
        variants=variants,
        summaries={variant.name: ModelSummary(parameters=1, flops=1, layers=()) for variant in variants},
        runs=tuple(
            PlannedRun(identity=f"{variant.name}/{seed}", variant=variant.name, seed=seed)
            for seed in range(cell.looks[-1])
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
            seeds=planned[-1],
            looks=planned if len(planned) > 1 else (),
            metric=LockedMetric(name="test_accuracy", direction="maximize", meaningful=cell.margin),
            questions=(LockedQuestion(effect="model.width"),),
            alpha=ALPHA,
            collapse_margin=0.02,
        ),
        locked_hash="",
    )


def check_whole(cell: Cell, values: Array, expected: Sequence[Standing], random: np.random.Generator) -> None:
    """Take a study from its plan to its answers, its runs ending one by one in any order.

    Raises:
        AssertionError: it comes to another verdict, or takes other runs.
    """
    plan, ended = make_plan(cell), list[RecordedRun]()
    schedule = LooksUnderWay(plan, ())
    waiting = list(schedule.runs)
    while waiting:
        run = waiting.pop(int(random.integers(len(waiting))))
        ended.append(_recorded(run, float(values[int(run.variant.removeprefix("width=")), run.seed])))
        waiting += schedule.add(ended[-1])
    found = answers(StudyLooks.of(plan, ended), run_table(plan, ended))
    assert [(answer.look.state, answer.look.seeds) for answer in found] == [
        (each.state.value, each.seeds) for each in expected
    ]
    for answer, each in zip(found, expected, strict=True):
        assert answer.verdict is _verdict(each)
    assert len(ended) == runs_taken(expected, cell.looks[0])


def _recorded(run: PlannedRun, accuracy: float) -> RecordedRun:
    # No two seeds are equal in every number, which would be no repetitions.
    metrics = {"test_accuracy": accuracy, "test_loss": float(run.seed)}
    return RecordedRun(planned=run, run_id=run.identity, outcome=Outcome.DONE, metrics=metrics, curves={}, confusion={})


def _verdict(standing: Standing) -> Verdict:
    if standing.state is State.TOO_SMALL:
        return Verdict.NO_MEANINGFUL_DIFFERENCE
    if standing.state is not State.DIFFERENT or standing.interval is None:
        return Verdict.UNDECIDED
    return Verdict.HELPS if standing.interval.low > 0 else Verdict.HURTS


def line(result: dict[str, Any]) -> str:
    """Return the row of a cell: errors, runs and power, beside those of a fixed number of seeds."""
    planned, fixed, bare = (result[rule] for rule in ("planned_looks", "fixed", "without_floor"))
    power = " ".join(
        f"{size} SD {100 * found:.1f}"
        + (f" (no floor {100 * bare['power'][size]:.1f})" if bare else "")
        + f" (fixed {100 * fixed['power'][size]:.1f})"
        for size, found in planned["power"].items()
    )
    return (
        f"{result['cell']:70} wrong {100 * planned['wrong']:.2f} ± {100 * planned['standard_error']:.2f} % "
        f"(fixed {100 * fixed['wrong']:.2f}) | runs {planned['runs']:.1f} of {fixed['runs']} "
        f"({100 * (1 - planned['runs'] / fixed['runs']):.0f} % fewer) | power {power or '-'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=4_000, help="simulated studies of each cell")
    parser.add_argument("--whole", type=int, default=10, help="of these, how many go from the plan to the answers")
    parser.add_argument("--processes", type=int, default=1, help="cells that are simulated at the same time")
    parser.add_argument("--cells", default="", help="only those whose names match this regular expression")
    parser.add_argument("--output", type=Path, help="folder for a dated JSON file")
    arguments = parser.parse_args()
    chosen = [cell for cell in cells() if re.search(arguments.cells, cell.name)]
    results = []
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(measure, cell, arguments.repetitions, arguments.whole) for cell in chosen]
        for future in futures:
            results.append(future.result())
            print(line(results[-1]), flush=True)
    if arguments.output is not None:
        surroundings = environment(arguments, libraries=("numpy", "scipy", "pandas"))
        record = {"environment": surroundings, "alpha": ALPHA, "results": results}
        write_record(arguments.output, record, name="error-rates", kind="looks")


if __name__ == "__main__":
    main()
