"""Extends a difference of right answers to other test images: seeds × images, both seen as drawn at random."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ablation.analysis import statistics
from ablation.analysis.answer_records import CrossedEffect

Answers = Sequence[NDArray[np.bool_]]
"""By seed, which test images were answered rightly, (N,) each."""


def crossed_effect(sides: Sequence[tuple[float, Answers]]) -> CrossedEffect | None:
    """Return the weighted sum of sides, each a weight and its answers in the same order of seeds.

    None where there are no answers to every image of one test split, or too few seeds or images for an interval.
    """
    images = {len(answers) for _, by_seed in sides for answers in by_seed}
    if len(images) != 1 or 0 in images:
        return None
    differences = sum(weight * np.stack(by_seed).astype(np.float64) for weight, by_seed in sides)  # (seeds, images)
    assert isinstance(differences, np.ndarray)
    found = statistics.crossed_interval(differences, level=statistics.DESCRIPTIVE_LEVEL)
    if found is None:
        return None
    mean, interval, degrees_of_freedom = found
    seeds, count = differences.shape
    return CrossedEffect(mean=mean, interval=interval, seeds=seeds, images=count, degrees_of_freedom=degrees_of_freedom)
