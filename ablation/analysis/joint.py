"""Describes two changes beside each other: alone, together, and what their interaction may be called."""

import math
from collections.abc import Sequence

from scipy import special

from ablation.analysis.answer_records import Difference, Interplay, JointEffect, Verdict
from ablation.analysis.contrasts import Contrast
from ablation.analysis.finished import difference_of
from ablation.analysis.seed_differences import Runs, seed_differences

_WHOLES = {"fraction": 1.0, "percent": 100.0}
"""What a metric is a share of, by its unit."""


def joint_effect(contrast: Contrast, runs: Runs, verdict: Verdict) -> JointEffect:
    """Describe both changes of an interaction, each against neither."""
    both, first, second, neither = (variants for _, variants in contrast.sides)

    def against_neither(variants: Sequence[str]) -> Difference:
        weights = {
            name: sign * abs(contrast.weights[name]) for own, sign in ((variants, 1), (neither, -1)) for name in own
        }
        found = seed_differences(weights, runs, contrast.metric.name)
        return difference_of([each.difference for each in found], test_to_train=runs.test_to_train)

    alone, combined = (against_neither(first), against_neither(second)), against_neither(both)
    in_logits, is_decided = _in_logits(contrast, runs), verdict in (Verdict.BETTER_THAN_SUM, Verdict.WORSE_THAN_SUM)
    interaction = [each.difference for each in seed_differences(contrast.weights, runs, contrast.metric.name)]
    sign = _sign(math.fsum(interaction))
    return JointEffect(
        first=alone[0],
        second=alone[1],
        combined=combined,
        in_logits=in_logits,
        interplay=interplay(*alone, sign, combined) if is_decided else None,
        depends_on_scale=is_decided and in_logits is not None and sure_sign(in_logits) != sign,
    )


def interplay(first: Difference, second: Difference, interaction: int, combined: Difference) -> Interplay:
    """Name how two effects go together whose interaction is decided, and has this sign.

    `first` and `second` are each change alone, `combined` is both together, all against neither.
    """
    signs = sure_sign(first), sure_sign(second)
    if 0 in signs:
        return Interplay.NO_SUM
    if signs[0] != signs[1]:
        return Interplay.OPPOSE
    if signs[0] == interaction:
        return Interplay.REINFORCE
    return Interplay.OVERLAP if signs[0] == _sign(combined.mean) else Interplay.WORK_AGAINST


def sure_sign(difference: Difference) -> int:
    """Return 1 or -1 where the whole interval is on that side of zero, else 0; without an interval the mean's sign."""
    return difference.interval.sign if difference.interval is not None else _sign(difference.mean)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _in_logits(contrast: Contrast, runs: Runs) -> Difference | None:
    """Return the interaction on the logit scale; None where the metric is no fraction, or is 0 or 1 in a run."""
    whole = _WHOLES.get(contrast.metric.unit)
    if whole is None:
        return None

    def logit(value: float) -> float:
        return float(special.logit(value / whole))

    measured = seed_differences(contrast.weights, runs, contrast.metric.name)
    found = seed_differences(contrast.weights, runs, contrast.metric.name, to=logit)
    if not 0 < len(found) == len(measured):
        return None
    return difference_of([each.difference for each in found], test_to_train=runs.test_to_train)
