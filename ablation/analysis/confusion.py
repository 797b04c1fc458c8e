"""Describes errors: confusion matrices, what differs between them beyond chance, and on which images runs disagree."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ablation.analysis.descriptive_records import ConfusionDifference, ConfusionMatrix, Disagreement, Matrix
from ablation.analysis.finished import FinishedRuns, run_ids
from ablation.analysis.statistics import correction
from ablation.records import RecordedRun, Variant

SPLITS = ("test", "train")


def confusion_matrices(finished: FinishedRuns) -> tuple[ConfusionMatrix, ...]:
    """Return the matrices summed over each variant's runs, on test and on train, the baseline first."""
    found = []
    for variant in finished.variants:
        for split in SPLITS:
            runs = _with_confusion(finished, variant, split)
            if runs:
                counts = np.sum([np.asarray(run.confusion[split]) for run in runs], axis=0)
                found.append(
                    ConfusionMatrix(
                        variant=variant.name,
                        split=split,
                        counts=tuple(tuple(int(count) for count in row) for row in counts),
                        run_ids=run_ids(runs),
                    )
                )
    return tuple(found)


def confusion_differences(finished: FinishedRuns) -> tuple[ConfusionDifference, ...]:
    """Return each variant's confusion on test minus the baseline's, over the seeds that both have."""
    found = (_confusion_difference(finished, variant, "test") for variant in finished.others)
    return tuple(row for row in found if row is not None)


def disagreements(finished: FinishedRuns) -> tuple[Disagreement, ...]:
    """Return on how many test images seeds, and each variant and the baseline, differ in being right."""
    is_folded = finished.plan.replicates is not None  # each replicate is tested on images of its own
    found = []
    for variant in finished.variants:
        runs = finished.done(variant)
        own = _correct(runs)
        if not own:
            continue
        reference = finished.plan.reference(variant)
        base = _correct(finished.done(reference)) if reference is not variant else {}
        common = sorted(own.keys() & base.keys())
        apart = [float(np.mean(own[seed] != base[seed])) for seed in common if len(own[seed]) == len(base[seed])]
        found.append(
            Disagreement(
                variant=variant.name,
                n=len(own),
                between_seeds=_pairwise_disagreement(list(own.values())) if not is_folded else None,
                with_baseline=float(np.mean(apart)) if apart else None,
                run_ids=run_ids([run for run in runs if run.planned.seed in own]),
            )
        )
    return tuple(found)


def correct_answers(run: RecordedRun) -> NDArray[np.bool_]:
    """Return which test images a run's model answered rightly, (N,); empty where that was not kept."""
    correct: NDArray[np.bool_] = np.frombuffer(run.test_correct.encode("ascii"), dtype=np.uint8) == ord("1")
    return correct


def _with_confusion(finished: FinishedRuns, variant: Variant, split: str) -> list[RecordedRun]:
    """Return the done runs with a matrix as large as the data set has classes; none where it has none."""
    classes = len(finished.plan.data_of(variant.name).shape.classes)
    return [run for run in finished.done(variant) if len(run.confusion.get(split, ())) == classes > 0]


def _confusion_difference(finished: FinishedRuns, variant: Variant, split: str) -> ConfusionDifference | None:
    reference = finished.plan.reference(variant)
    if reference is variant:
        return None
    own, base = (
        {run.planned.seed: run for run in _with_confusion(finished, each, split)} for each in (variant, reference)
    )
    seeds = sorted(own.keys() & base.keys())
    if not seeds:
        return None
    shares = [np.stack([_shares(runs[seed], split) for seed in seeds]) for runs in (own, base)]  # (n, classes, classes)
    difference = (shares[0] - shares[1]).mean(axis=0)
    reseeding = None
    if len(seeds) > 1:
        # Two seeds of a variant differ by √2 SD (root mean square); over √n, pooled, that is √((s² + s'²) / n).
        reseeding = np.sqrt((shares[0].var(axis=0, ddof=1) + shares[1].var(axis=0, ddof=1)) / len(seeds))
        reseeding = reseeding * correction(len(seeds), finished.plan.test_to_train)
    return ConfusionDifference(
        variant=variant.name,
        split=split,
        n=len(seeds),
        difference=_matrix(difference),
        reseeding=_matrix(reseeding) if reseeding is not None else None,
        size=_root_mean_square(difference),
        reseeding_size=_root_mean_square(reseeding) if reseeding is not None else None,
        run_ids=run_ids([runs[seed] for runs in (own, base) for seed in seeds]),
    )


def _shares(run: RecordedRun, split: str) -> NDArray[np.float64]:
    counts = np.asarray(run.confusion[split], dtype=np.float64)
    shares: NDArray[np.float64] = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def _correct(runs: Sequence[RecordedRun]) -> dict[int, NDArray[np.bool_]]:
    return {run.planned.seed: correct_answers(run) for run in runs if run.test_correct}


def _pairwise_disagreement(answers: Sequence[NDArray[np.bool_]]) -> float | None:
    """Return the mean share of images on which two differ, over all pairs; None without pairs of one length."""
    n = len(answers)
    if n < 2 or len({len(each) for each in answers}) > 1:
        return None
    right = np.sum(answers, axis=0, dtype=np.int64)  # (N,) how many of n are right on each image
    return float(np.mean(right * (n - right)) / (n * (n - 1) / 2))


def _matrix(values: NDArray[np.float64]) -> Matrix:
    return tuple(tuple(float(value) for value in row) for row in values)


def _root_mean_square(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
