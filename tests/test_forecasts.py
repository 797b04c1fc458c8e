"""Holds forecasts to the rule itself: what they say happens, happens as often when the future is drawn anew."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from factories import make_plan, make_runs

from ablation.analysis import Verdict, analyse
from ablation.analysis.answer_records import Forecast
from ablation.analysis.forecasts import forecast_of
from ablation.analysis.sequential import Asked, Lack, Rule, Standing, State, judged
from ablation.report import sentence, tables
from ablation.report.prose.forecasts import percent


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """What a forecast takes from a study's looks, without a study."""

    family: tuple[Asked, ...]
    rule: Rule

    @property
    def standings(self) -> tuple[Standing, ...]:
        return judged(self.family, self.rule)


def rule(looks: tuple[int, ...], *, comparisons: int = 2, growth: tuple[int, ...] = ()) -> Rule:
    return Rule(looks=looks, growth=growth, alpha=0.05, planned=comparisons, comparisons=comparisons)


def values(seeds: int, mean: float, sd: float = 1.0) -> list[float]:
    """Return differences that have this mean and SD exactly."""
    drawn = np.random.default_rng(3).standard_normal(seeds)
    return list(mean + sd * (drawn - drawn.mean()) / drawn.std(ddof=1))


def asked(shown: Sequence[float], *, most: int, rope: float | None = None) -> Asked:
    return Asked(metric="accuracy", rope=rope, spread=1.0, seeds=[*shown, *[Lack.NOT_ENDED] * (most - len(shown))])


def forecast(shown: Sequence[float], looks: tuple[int, ...], *, rope: float | None = None, others: int = 0) -> Forecast:
    family = tuple(asked(each, most=looks[-1], rope=rope) for each in (shown, *[values(len(shown), 0.3, 1.2)] * others))
    found = Looks(family=family, rule=rule(looks, comparisons=max(2, 1 + others)))
    standing = found.standings[0]
    following = standing.wanted if standing.state is State.OPEN else None
    made = forecast_of(found, 0, following=following)
    assert made is not None
    return made


def futures(shown: Sequence[float], seeds: int, *, least_sd: float = 0.0, repetitions: int = 1500):
    """Yield the seeds so far and so many as they may come to be, by another generator than the forecast's."""
    random, n = np.random.default_rng(77), len(shown)
    mean, sd = float(np.mean(shown)), max(float(np.std(shown, ddof=1)), least_sd)
    for _ in range(repetitions):
        sigma = sd * math.sqrt((n - 1) / random.chisquare(n - 1))
        centre = mean + sigma / math.sqrt(n) * random.standard_normal()
        yield [*shown, *(centre + sigma * random.standard_normal(seeds - n))]


def share(decided: Sequence[bool]) -> float:
    return sum(decided) / len(decided)


def error(decided: Sequence[bool]) -> float:
    """Return three standard errors of the share, and of the forecast's own draws."""
    return 3 * math.sqrt(0.25 / len(decided) + 0.25 / 2000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "looks", "mean", "rope"),
    [(5, (5, 8, 12), 1.5, None), (8, (5, 8, 12), 0.8, 0.5), (5, (5, 8, 12), 0.1, 2.0), (8, (8, 9), 0.9, None)],
)
def test_the_next_look_decides_as_often_as_is_forecast(n, looks, mean, rope):
    shown = values(n, mean)
    found = forecast(shown, looks, rope=rope)

    decided = [
        judged([asked(each, most=looks[-1], rope=rope)], rule(looks))[0].state.is_decided
        for each in futures(shown, found.seeds)
    ]

    assert found.is_planned
    assert 0.2 < found.chance < 0.9
    assert abs(found.chance - share(decided)) < error(decided)


@pytest.mark.slow
def test_the_floor_of_the_next_look_holds_in_its_forecast():
    quiet, looks = values(3, 0.5, 0.05), (3, 6, 12)
    found = forecast(quiet, looks, others=3)
    others = [values(3, 0.3, 1.2)] * 3
    standing = judged([asked(each, most=12) for each in (quiet, *others)], rule(looks, comparisons=4))[0]
    following = [list(np.random.default_rng(place).standard_normal(3)) for place in range(3)]

    decided = [
        judged(
            [
                asked(each, most=12),
                *(asked([*old, *new], most=12) for old, new in zip(others, following, strict=True)),
            ],
            rule(looks, comparisons=4),
        )[0].state.is_decided
        for each in futures(quiet, 6, least_sd=standing.least_sd)
    ]

    assert standing.is_floored
    assert abs(found.chance - share(decided)) < error(decided)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "looks", "mean", "rope"),
    [(12, (12,), 0.65, None), (12, (12,), 0.1, 0.8), (20, (20,), 0.5, 0.5), (5, (5, 8, 12, 20), 0.1, None)],
)
def test_seeds_beyond_the_plan_decide_as_often_as_is_forecast(n, looks, mean, rope):
    shown = values(n, mean)
    found = forecast(shown, looks, rope=rope)
    grown = rule(looks, growth=(found.seeds,))

    decided = [
        judged([asked(each, most=found.seeds, rope=rope)], grown)[0].state.is_decided
        for each in futures(shown, found.seeds, repetitions=800)
    ]

    assert not found.is_planned
    assert found.more == found.seeds - n
    assert 0.01 < found.chance < 0.95
    assert abs(found.chance - share(decided)) < error(decided)


@pytest.mark.slow
def test_the_seeds_for_80_percent_decide_in_80_percent():
    shown = values(12, 0.65)
    found = forecast(shown, (12,), rope=0.8)
    total = 12 + (found.more_for_power or 0)
    grown = rule((12,), growth=(total,))

    decided = [
        judged([asked(each, most=total, rope=0.8)], grown)[0].state.is_decided
        for each in futures(shown, total, repetitions=600)
    ]

    assert abs(share(decided) - 0.8) < error(decided)


def test_few_seeds_cannot_tell_how_many_more_are_needed():
    few, more = (forecast(values(n, 0.5), (n,)) for n in (3, 20))

    assert (few.is_unclear, few.more_for_power) == (True, None)
    assert not more.is_unclear
    assert more.more_for_power > more.more


def test_a_muted_look_decides_nothing():
    assert forecast(values(3, 9.0, 1.0), (3, 4, 12)).chance == 0.0


def test_a_forecast_is_the_same_at_every_call():
    assert forecast(values(12, 0.4), (12,)) == forecast(values(12, 0.4), (12,))


@pytest.mark.parametrize("scale", [1e-300, 1e150, 1e300])
@pytest.mark.parametrize("looks", [(12,), (12, 18)])
def test_the_size_of_the_unit_changes_no_forecast(scale, looks):
    plain, scaled = (
        forecast([unit * value for value in values(12, 0.6)], looks, rope=0.4 * unit) for unit in (1.0, scale)
    )

    assert scaled.chance == pytest.approx(plain.chance, abs=0.01)


def test_the_sign_of_a_difference_changes_no_forecast_but_for_its_draws():
    up, down = (forecast(values(12, mean), (12,), rope=0.4).chance for mean in (0.6, -0.6))

    assert up == pytest.approx(down, abs=0.06)


def test_thirty_forecasts_take_about_a_second():
    shown = [values(12, 0.02 * place) for place in range(30)]
    begun = time.perf_counter()
    for each in shown:
        forecast(each, (12,))

    assert time.perf_counter() - begun < 5  # five times what it takes, as other work may share the machine


def undecided(seeds: int, *, mean: float = 0.004, looks: tuple[int, ...] = (), trained: int | None = None):
    plan = make_plan(seeds=seeds, factors={"model.normalization": ("none", "batch")})
    plan = replace(plan, locked=replace(plan.locked, looks=looks))
    noise = np.random.default_rng(9).normal(mean, 0.02, seeds)
    runs = make_runs(
        plan,
        accuracy=lambda variant, seed: 0.8 + (0.0 if variant.is_baseline else float(noise[seed])),
        outcomes={(variant.name, seed): None for variant in plan.variants for seed in range(trained or seeds, seeds)},
    )
    analysis = analyse(plan, runs)
    assert analysis.answers[0].verdict is Verdict.UNDECIDED
    return analysis


def test_the_sentence_tells_the_next_looks_chance():
    analysis = undecided(12, mean=0.015, looks=(8, 12), trained=8)
    answer = analysis.answers[0]
    chance = percent(answer.forecast.chance)

    assert f"Next: the look at 12 seeds, which decides it with a chance of {chance}; the same" in sentence(answer)
    assert tables.scorecard(analysis).rows[0][-1] == f"12 seeds: {chance}"


def test_the_sentence_tells_what_seeds_beyond_the_plan_would_decide():
    analysis = undecided(12, mean=0.015)
    answer = analysis.answers[0]
    chance = percent(answer.forecast.chance)

    assert "Next: 24 more seeds beyond the plan, " in sentence(answer)
    assert f" decide it with a chance of {chance}; for 80 % it takes" in sentence(answer)
    assert tables.sureness(analysis).rows[0][-3] == f"24 more: {chance}"


def test_of_a_comparison_given_up_early_the_sentence_tells_all_seeds_that_go_beyond_the_plan():
    answer = undecided(12, mean=0.0, looks=(5, 8, 12), trained=5).answers[0]

    assert "Stopped at look 1 of 3, 5 seeds: not decidable within the plan's 12. Next: 13 more seeds " in sentence(
        answer
    )
    assert "Next: 13 more seeds (18 in all, beyond the plan's 12), " in sentence(answer)


def test_the_sentence_says_where_seeds_are_too_few_to_tell():
    answer = undecided(4).answers[0]

    assert "too few seeds to tell how many it takes for 80 %" in sentence(answer)


def test_a_decided_comparison_has_no_forecast():
    plan = make_plan()

    assert [answer.forecast for answer in analyse(plan, make_runs(plan)).answers if answer.verdict.is_decided] == [None]
