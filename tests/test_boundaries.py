"""Holds the boundaries of planned looks to tables, simulated paths, and a recursion that adds one seed at a time."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from ablation.analysis import boundaries as recursion
from ablation.analysis.boundaries import Boundary, boundaries

ALPHA = 0.05
TABLE = [
    ((3, 5, 8, 12), 1, (0.00313, 0.00589, 0.01528, 0.03544), (17.8, 5.35, 3.19, 2.40)),
    ((3, 5, 8, 12), 2, (0.00156, 0.00290, 0.00742, 0.01695), (25.3, 6.50, 3.72, 2.81)),
    ((3, 5, 8, 12), 4, (0.00078, 0.00143, 0.00363, 0.00817), (35.8, 7.84, 4.29, 3.22)),
    ((3, 5, 8, 12), 8, (0.00039, 0.00071, 0.00178, 0.00396), (50.6, 9.41, 4.88, 3.63)),
    ((5, 10, 20), 1, (0.00313, 0.00985, 0.04158), (6.36, 3.26, 2.19)),
    ((5, 10, 20), 2, (0.00156, 0.00486, 0.02033), (7.66, 3.71, 2.53)),
    ((5, 10, 20), 4, (0.00078, 0.00240, 0.00998), (9.18, 4.17, 2.86)),
    ((5, 10, 20), 8, (0.00039, 0.00119, 0.00492), (10.98, 4.66, 3.18)),
]
LOOKS = [(3, 5, 8, 12), (5, 10, 20), (2, 3, 4), (4, 5, 30), (2, 40)]
"""Steps of one seed, of two and of many, and first looks with one degree of freedom."""
SOME_LOOKS = st.lists(st.integers(2, 40), min_size=1, max_size=5, unique=True).map(lambda looks: tuple(sorted(looks)))
COMPARISONS = st.integers(1, 40)


@pytest.mark.parametrize(("looks", "comparisons", "p_values", "limits"), TABLE)
def test_boundaries_are_those_of_the_table(looks, comparisons, p_values, limits):
    found = boundaries(looks, ALPHA / comparisons)

    assert tuple(boundary.seeds for boundary in found) == looks
    assert [round(boundary.p, 5) for boundary in found] == pytest.approx(p_values, abs=1e-9)
    assert [float(f"{boundary.t:.3g}") if looks[0] == 3 else round(boundary.t, 2) for boundary in found] == list(limits)


def test_a_boundarys_p_value_is_that_of_its_t():
    for boundary in boundaries((3, 5, 8, 12), ALPHA):
        assert boundary.p == pytest.approx(2 * float(stats.t.sf(boundary.t, boundary.seeds - 1)), rel=1e-9)


@pytest.mark.parametrize("looks", LOOKS)
def test_simulated_paths_cross_first_at_each_look_as_often_as_is_to_be_spent(looks):
    paths, random = 400_000, np.random.default_rng(18)
    values = random.standard_normal((paths, looks[-1]), dtype=np.float32).astype(np.float64)
    spent = [ALPHA * (seeds / looks[-1]) ** 2 for seeds in looks]
    uncrossed = np.ones(paths, dtype=bool)

    for boundary, before, by_now in zip(boundaries(looks, ALPHA), [0.0, *spent], spent, strict=False):
        first = values[:, : boundary.seeds]
        t = first.mean(axis=1) / first.std(axis=1, ddof=1) * math.sqrt(boundary.seeds)
        crossing = uncrossed & (np.abs(t) > boundary.t)
        uncrossed &= ~crossing
        to_spend = by_now - before
        assert abs(crossing.mean() - to_spend) < 4 * math.sqrt(to_spend * (1 - to_spend) / paths)


def uncrossed_seed_by_seed(limits: dict[int, float], *, points: int = 4001, steps: int = 300) -> float:
    """Return the chance that |t| stays within the limit at each number of seeds that has one.

    Backwards and one seed at a time: what is tabulated is the chance of no crossing later, by the angle whose sine is
    S / √(nQ). A new value of √Q tan f, where √(n - 1) tan f is distributed as t with n - 1 degrees of freedom, turns
    that sine s into (√(n - 1) s cos f + sin f) / √n.
    """
    angles = np.linspace(-math.pi / 2, math.pi / 2, points)
    first, last = min(limits), max(limits)
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    chance = np.ones(points)
    for seeds in range(last, first, -1):
        limit = math.atan(limits.get(seeds, math.inf) / math.sqrt(seeds - 1))
        old = math.sqrt(seeds - 1) * np.sin(angles)
        radius, shift = np.hypot(old, 1) / math.sqrt(seeds), np.arctan2(old, 1)
        widest = np.arcsin(np.minimum(1, math.sin(limit) / radius))
        stays = np.zeros(points)
        for middle in (-math.pi, 0, math.pi):
            low, high = (np.clip(middle + end - shift, -math.pi / 2, math.pi / 2)[:, None] for end in (-widest, widest))
            steps_to = (high - low) / 2 * nodes + (high + low) / 2
            reached = np.arcsin(np.clip(radius[:, None] * np.sin(steps_to + shift[:, None]), -1, 1))
            density = cosine_power(steps_to, seeds - 2) * np.interp(reached, angles, chance)
            stays += ((high - low) / 2 * weights * density).sum(axis=1)
        chance = stays
    limit = math.atan(limits[first] / math.sqrt(first - 1))
    return float(limit * weights @ (cosine_power(limit * nodes, first - 2) * np.interp(limit * nodes, angles, chance)))


def cosine_power(angles: np.ndarray, power: int) -> np.ndarray:
    scale = math.exp(math.lgamma(power / 2 + 1) - math.lgamma((power + 1) / 2)) / math.sqrt(math.pi)
    return scale * np.maximum(np.cos(angles), 0) ** power


@pytest.mark.slow
@pytest.mark.parametrize("looks", [(3, 5, 8, 12), (5, 10), (4, 5, 6)])
def test_steps_of_many_seeds_spend_what_as_many_steps_of_one_seed_do(looks):
    found = boundaries(looks, ALPHA)

    for count in range(1, len(looks) + 1):
        crossed = 1 - uncrossed_seed_by_seed({each.seeds: each.t for each in found[:count]})
        assert crossed == pytest.approx(ALPHA * (looks[count - 1] / looks[-1]) ** 2, rel=1e-3)


@pytest.mark.parametrize("comparisons", [1, 7, 40])
def test_the_first_boundary_spends_its_share_by_the_t_distribution_alone(comparisons):
    alpha = ALPHA / comparisons
    first = boundaries((4, 9, 16), alpha)[0]

    assert first.p == pytest.approx(alpha * (4 / 16) ** 2, rel=1e-12)
    assert first.t == pytest.approx(float(stats.t.isf(first.p / 2, 3)), rel=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 10_000), COMPARISONS)
def test_one_look_has_the_quantile_of_t(seeds, comparisons):
    expected = -float(special.stdtrit(seeds - 1, ALPHA / comparisons / 2))

    (found,) = boundaries((seeds,), ALPHA / comparisons)

    assert found == Boundary(seeds=seeds, t=expected, p=ALPHA / comparisons)


@settings(deadline=None, max_examples=30)
@given(SOME_LOOKS, COMPARISONS, st.data())
def test_more_looks_never_loosen_the_last(looks, comparisons, data):
    alpha = ALPHA / comparisons
    fewer = tuple(sorted({looks[-1], *data.draw(st.sets(st.sampled_from(looks)))}))

    # To the integration's own error, which test_finer_rules_change_no_boundary bounds.
    assert boundaries(looks, alpha)[-1].p <= boundaries(fewer, alpha)[-1].p * (1 + 1e-4)
    assert boundaries(looks, alpha)[-1].p <= alpha * (1 + 1e-4)


@settings(deadline=None, max_examples=30)
@given(SOME_LOOKS, COMPARISONS, st.integers(1, 40))
def test_a_smaller_alpha_never_loosens_a_boundary(looks, comparisons, more):
    loose, strict = (boundaries(looks, ALPHA / count) for count in (comparisons, comparisons + more))

    assert all(smaller.t > larger.t for smaller, larger in zip(strict, loose, strict=True))


@pytest.mark.parametrize("looks", [(), (1, 5), (5, 5), (8, 5), (3, 5, 4)])
def test_numbers_of_seeds_that_do_not_rise_from_two_are_refused(looks):
    with pytest.raises(ValueError, match=r"looks are numbers of seeds from 2, each larger than the one before, not \("):
        boundaries(looks, ALPHA)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.05, math.nan])
def test_an_alpha_that_is_no_probability_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha is between 0 and 1, not"):
        boundaries((3, 5), alpha)


@pytest.fixture
def finer_rules(monkeypatch) -> Iterator[None]:
    def forget() -> None:
        for cached in (recursion._rule, recursion._ends_rule, recursion._boundaries):
            cached.cache_clear()

    for name, factor in {"ANGLES": 2, "PATHS": 2, "STEPS": 4}.items():
        monkeypatch.setattr(recursion, name, factor * getattr(recursion, name))
    forget()
    yield
    forget()


MANY_LOOKS = [*LOOKS, (2, 3, 4, 5, 6, 7, 8, 9, 10, 11), (5, 50, 500), (2, 10_000), (20, 21, 22, 40)]
FAR_APART = [(10, 100, 1000, 10_000), (2, 3, 4, 5, 6, 8, 10, 20, 100, 10_000)]


@pytest.fixture(scope="module")
def usual() -> dict[tuple[tuple[int, ...], int], tuple[Boundary, ...]]:
    all_looks = [*MANY_LOOKS, *FAR_APART]
    return {(looks, count): boundaries(looks, ALPHA / count) for looks, count in itertools.product(all_looks, (1, 40))}


@pytest.mark.slow
@pytest.mark.parametrize("comparisons", [1, 40])
@pytest.mark.parametrize("looks", MANY_LOOKS)
def test_finer_rules_change_no_boundary(usual, finer_rules, looks, comparisons):
    found = boundaries(looks, ALPHA / comparisons)

    assert [each.t for each in usual[looks, comparisons]] == pytest.approx([each.t for each in found], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("comparisons", [1, 40])
@pytest.mark.parametrize("looks", FAR_APART)
def test_finer_rules_change_hardly_what_is_spent_where_looks_lie_far_apart(usual, finer_rules, looks, comparisons):
    alpha = ALPHA / comparisons
    found = boundaries(looks, alpha)

    assert [each.p for each in usual[looks, comparisons]] == pytest.approx([each.p for each in found], abs=alpha / 400)


SMALL = (9e-7, 1e-7, 1e-8, 1e-10, 1e-12, 1e-300)


@pytest.mark.parametrize("looks", [(3, 5, 8, 12), (5, 10, 20), (20, 21, 22, 40), (2, 3, 4, 5, 6, 7, 8, 9, 10, 11)])
def test_boundaries_of_a_tiny_alpha_never_spend_more_than_it_and_hardly_less(looks):
    for alpha in SMALL:
        found = boundaries(looks, alpha)

        # Crossing at any look is at most as likely as the sum over looks, and at least as likely as at the last.
        assert alpha * (1 - (looks[-2] / looks[-1]) ** 2) * 0.99 <= found[-1].p <= alpha
        assert sum(each.p for each in found) <= alpha * (1 + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("looks", [(3, 5, 8, 12), (5, 10, 20), (20, 30, 50)])
def test_boundaries_of_a_small_alpha_are_those_of_finer_rules(looks, finer_rules, monkeypatch):
    monkeypatch.setattr(recursion, "FARTHEST", 12.0)
    finer = boundaries(looks, 2e-6)
    monkeypatch.undo()
    recursion._boundaries.cache_clear()
    recursion._ends_rule.cache_clear()

    assert [each.t for each in boundaries(looks, 2e-6)] == pytest.approx([each.t for each in finer], rel=1e-5)
