"""Measures how often intervals over repeated folds find a difference that is not there: plain and corrected ones.

    python -m benchmarks.fold_errors --output benchmarks/results

Two learners are compared over folds of one small data set, drawn as a study with `replicates` draws them, and judged by
the t interval of the product at 5 %: as if folds were independent, and corrected (Nadeau & Bengio 2003). Data sets are
drawn anew. Each learner is a ridge regression on a block of five features of its own, the target depends on both blocks
alike, and the blocks have the same distribution: over data sets neither learner is better, at any size. So whatever is
found is wrong. A `share` of the variance of the blocks is common to both, which makes the learners alike.

- `classes`: two classes by the sign of the target; learners are compared by accuracy. `numbers`: by mean squared error.
- `found`: how often a true difference is: the target depends more on the second block.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ablation.analysis.statistics import interval_at, sample_sd
from ablation.datasets.splits import fold_of
from ablation.records import Replicates
from benchmarks.machine import environment, write_record

ALPHA = 0.05
FEATURES, PENALTY = 5, 1.0
Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A kind of data set and the folds that it is divided into; `gain` is how much more the second block tells."""

    kind: Literal["classes", "numbers"]
    examples: int
    replicates: Replicates
    share: float = 0.0
    gain: float = 0.0

    @property
    def name(self) -> str:
        found = f", gain {self.gain:g}" if self.gain else ""
        return f"{self.kind}, {self.examples} examples, {self.replicates}, share {self.share:g}{found}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How often an interval excluded zero, of so many data sets; of those whose folds all agree there is none."""

    cell: str
    data_sets: int
    plain: float
    corrected: float
    without_interval: int
    seconds: float


def cells() -> Iterator[Cell]:
    usual = Replicates(folds=5, repeats=2)
    kinds: tuple[Literal["classes", "numbers"], ...] = ("classes", "numbers")
    for kind in kinds:
        for examples in (60, 200, 1000):
            for share in (0.0, 0.8):
                yield Cell(kind=kind, examples=examples, replicates=usual, share=share)
        for folds, repeats in ((5, 1), (10, 1), (5, 10), (2, 5)):
            yield Cell(kind=kind, examples=200, replicates=Replicates(folds=folds, repeats=repeats))
        yield Cell(kind=kind, examples=200, replicates=usual, gain=1.0)


def measure(cell: Cell, data_sets: int) -> Found:
    """Compare the learners on so many data sets, from a fixed seed."""
    begun = time.perf_counter()
    random = np.random.default_rng([5, cell.examples, cell.replicates.count, round(100 * cell.share)])
    plain = corrected = without = 0
    for number in range(data_sets):
        differences, test_to_train = _differences(cell, random, number)
        if not sample_sd(differences):
            without += 1
            continue
        intervals = [interval_at(differences, alpha=ALPHA, test_to_train=ratio) for ratio in (0.0, test_to_train)]
        signs = [interval.sign if interval is not None else 0 for interval in intervals]
        plain, corrected = plain + bool(signs[0]), corrected + bool(signs[1])
    return Found(
        cell=cell.name,
        data_sets=data_sets,
        plain=plain / data_sets,
        corrected=corrected / data_sets,
        without_interval=without,
        seconds=time.perf_counter() - begun,
    )


def _differences(cell: Cell, random: np.random.Generator, number: int) -> tuple[list[float], float]:
    """Return the difference that each fold of a data set shows, and n_test/n_train."""
    common = random.standard_normal((cell.examples, FEATURES))
    blocks = [
        np.sqrt(cell.share) * common + np.sqrt(1 - cell.share) * random.standard_normal((cell.examples, FEATURES))
        for _ in range(2)
    ]
    signal = blocks[0].sum(axis=1) + (1 + cell.gain) * blocks[1].sum(axis=1)
    target = signal + 2 * random.standard_normal(cell.examples)
    members = [np.arange(cell.examples)]
    if cell.kind == "classes":
        target = np.where(target > 0, 1.0, -1.0)
        members = [np.flatnonzero(target == sign) for sign in (-1.0, 1.0)]
    differences, tested, trained = [], 0, 0
    for seed in range(cell.replicates.count):
        test = fold_of(members, None, cell.replicates, study_seed=number, seed=seed, source="simulated")
        train = np.setdiff1d(np.arange(cell.examples), test)
        tested, trained = tested + len(test), trained + len(train)
        first, second = (_score(cell, block, target, train, test) for block in blocks)
        differences.append(second - first)
    return differences, tested / trained


def _score(cell: Cell, features: Array, target: Array, train: NDArray[np.int64], test: NDArray[np.int64]) -> float:
    """Return the accuracy, or minus the mean squared error, of a ridge regression on its test fold."""
    known, truth = features[train], target[train]
    middle = truth.mean()
    weights = np.linalg.solve(known.T @ known + PENALTY * np.eye(FEATURES), known.T @ (truth - middle))
    answers = features[test] @ weights + middle
    if cell.kind == "classes":
        return float(np.mean((answers > 0) == (target[test] > 0)))
    return -float(np.mean((answers - target[test]) ** 2))


def line(found: Found) -> str:
    return (
        f"{found.cell:60s} plain {100 * found.plain:5.1f} %  corrected {100 * found.corrected:5.1f} %  "
        f"no interval {found.without_interval}  {found.seconds:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=int, default=2_000, help="of each cell")
    parser.add_argument("--output", type=Path, help="folder for a dated JSON file")
    arguments = parser.parse_args()
    results = []
    for cell in cells():
        results.append(measure(cell, arguments.data_sets))
        print(line(results[-1]), flush=True)
    if arguments.output is not None:
        surroundings = environment(arguments, libraries=("numpy", "scipy"))
        record = {"environment": surroundings, "alpha": ALPHA, "results": list(map(asdict, results))}
        write_record(arguments.output, record, name="fold-errors", kind="cpu")


if __name__ == "__main__":
    main()
