"""Writes the report of an analysis: report.md, report.json and the figures; and its answers for a terminal."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

from ablation.analysis.records import Analysis
from ablation.report import tables
from ablation.report.figures import Picture, draw_confusion, draw_curves, draw_forest
from ablation.report.markup import plain, render
from ablation.report.numbers import duration_text, level_percent
from ablation.report.prose import headline, overview, sentence
from ablation.study.design import level_text

__all__ = ["answers_text", "sentence", "write_report"]

FORMAT = 1


def write_report(analysis: Analysis, folder: Path) -> tuple[Path, ...]:
    """Write the report into a folder, which is made where absent, and return the files' paths, report.md first.

    Equal analyses give equal bytes.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    pictures = {
        "forest": draw_forest(analysis, folder),
        "curves": draw_curves(analysis, folder),
        "confusion": draw_confusion(analysis, folder),
    }
    report, numbers = folder / "report.md", folder / "report.json"
    report.write_text(_markdown(analysis, pictures), encoding="utf-8", newline="\n")
    numbers.write_text(_json(analysis), encoding="utf-8", newline="\n")
    figures = [folder / picture.path for drawn in pictures.values() for picture in drawn]
    return (report, numbers, *figures)


def answers_text(analysis: Analysis) -> str:
    """Return the overview and a line per answer, for a terminal."""
    answers = (f"{number}. {sentence(answer)}" for number, answer in enumerate(analysis.answers, start=1))
    return "\n".join(" ".join(plain(line).split()) for line in (*overview(analysis), *answers))


def _json(analysis: Analysis) -> str:
    document = {"format": FORMAT, **dataclasses.asdict(analysis)}
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _markdown(analysis: Analysis, pictures: dict[str, tuple[Picture, ...]]) -> str:
    found = analysis.diagnostics
    return render(
        "report.md.jinja",
        analysis=analysis,
        overview=overview(analysis),
        sentences=[_split_sentence(analysis, index) for index in range(len(analysis.answers))],
        factors=[(factor, ", ".join(map(level_text, levels))) for factor, levels in analysis.factors.items()],
        splits=_splits(analysis),
        seed_varies=_listed(analysis.seed_varies),
        figures=pictures,
        tables=_tables(analysis),
        estimands=tables.estimands(analysis),
        confusion_counts=[(matrix, tables.confusion_counts(matrix, analysis)) for matrix in analysis.confusion],
        diagnostics=list(_diagnostics(analysis)),
        failed=[run for run in found.missing if run.error],
        is_timed_alike=max(len(found.hosts), len(found.devices)) <= 1,
        cost_text=duration_text(analysis.cost.training_seconds),
        alpha=level_percent(analysis.alpha),
        level=level_percent(1 - analysis.alpha / len(analysis.answers)),
        collapse=f"{100 * analysis.collapse_margin:.4g} points",
        chance=f"{100 * analysis.data.largest_class_share:.4g} %",
        decisive=f"{len(analysis.answers) / analysis.alpha:,.4g}",
        study_file="\n".join(
            f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in analysis.study.items()
        ),
    )


def _tables(analysis: Analysis) -> dict[str, tables.Table]:
    made = (
        tables.scorecard,
        tables.simple_effects,
        tables.variants,
        tables.secondary_metrics,
        tables.costs,
        tables.layers,
        tables.curves,
        tables.confusions,
        tables.sureness,
    )
    return {make.__name__: make(analysis) for make in made}


def _split_sentence(analysis: Analysis, index: int) -> tuple[str, str, bool]:
    """Return (headline, the rest of the sentence, whether a verdict decides it)."""
    answer = analysis.answers[index]
    begin = headline(answer)
    return begin, sentence(answer).removeprefix(begin), answer.verdict.is_decided


def _splits(analysis: Analysis) -> str:
    if analysis.heldout_split == "test":
        return (
            "There is no validation split: models train on the whole training split, curves by epoch are drawn on the "
            "test split, and nothing is selected by them."
        )
    return (
        "Curves by epoch are drawn on the validation split, which the seed draws from the training split; "
        "the test split is measured once, at the end."
    )


def _diagnostics(analysis: Analysis) -> Iterator[str]:
    """Yield a line per thing to know before believing the numbers."""
    found = analysis.diagnostics
    for equal in found.equal_seeds:
        seeds = ", ".join(map(str, equal.seeds))
        yield f"Identical seeds: {equal.variant} has the same result in every number with seeds {seeds}."
    for run in found.missing:
        yield f"Without a result: {run.variant}/seed-{run.seed}, {run.reason}."
    for what, names in (("Diverged", found.diverged), ("Collapsed", found.collapsed)):
        if names:
            yield f"{what}: {_listed(names)}."
    for what, values in (("hosts", found.hosts), ("devices", found.devices)):
        mixed = " Times are not comparable between them." if len(values) > 1 else ""
        yield f"Runs on {len(values)} {what if len(values) != 1 else what[:-1]}: {_listed(values)}.{mixed}"
    for index in found.skewed:
        yield f"Comparison {index + 1} has skewed differences (beyond ±1), so its interval is less sure."
    if analysis.seeds < 4:
        yield f"{analysis.seeds} seed{'s' if analysis.seeds > 1 else ''}: only large differences can be found."


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names) or "none recorded"
