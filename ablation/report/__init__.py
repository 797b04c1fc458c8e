"""Turns an analysis into a report: Markdown, HTML, JSON, LaTeX tables and figures; and its answers for a terminal."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.answer_records import Answer
from ablation.analysis.sequential import GROWTH_SHARE
from ablation.analysis.statistics import FEWEST_FOR_SKEWNESS, skewness_limit
from ablation.code import is_code
from ablation.lookup import flatten
from ablation.output import plain, plain_json
from ablation.records import TASKS, same_starts_text
from ablation.report import error_tables, learning_tables, part_tables, tables, tuning_tables
from ablation.report.answer_summaries import answer_summaries
from ablation.report.figures import Picture, draw_figures, pictures_of
from ablation.report.html import html_document
from ablation.report.labels import labelled
from ablation.report.latex import latex_document, latex_table
from ablation.report.markup import render
from ablation.report.names import baseline_levels_text, training_function
from ablation.report.numbers import duration_text, level_percent, signed
from ablation.report.page_rows import Address, no_address, rows_html
from ablation.report.paper import paper_document
from ablation.report.prose import headline, overview, sentence
from ablation.report.prose.extension import extension_text
from ablation.report.replicates import correction_text, in_folds
from ablation.report.rows import first_screen
from ablation.report.schema import SCHEMA_VERSION
from ablation.report.table import Table
from ablation.report.task_words import collapse_text, one_input, words_of
from ablation.storage.temporary import temporary_folder
from ablation.study.level_names import level_text

__all__ = [
    "FORMATS",
    "ReportFormat",
    "answer_summaries",
    "answers_text",
    "overview",
    "report_text",
    "sentence",
    "sentences",
    "write_report",
]

ReportFormat = Literal["markdown", "html", "json", "latex", "latex-wide"]
FORMATS: Mapping[ReportFormat, str] = {
    "markdown": "report.md",
    "html": "report.html",
    "json": "report.json",
    "latex": "tables.tex",
    "latex-wide": "tables-wide.tex",
}
_MOST_LISTED = 20
_LATEX_TABLES: tuple[tuple[Callable[[Analysis], Table], str], ...] = (
    (tables.scorecard, "Comparisons and their verdicts"),
    (part_tables.parts, "Parts"),
    (tuning_tables.tuned_and_untuned, "Comparisons with tuned settings and with the file's"),
    (tuning_tables.tuned_variants, "Tuning"),
    (tables.variants, "Variants"),
    (tables.secondary_metrics, "Other metrics, mean ± SD over seeds"),
    (tables.costs, "Cost"),
)


def write_report(analysis: Analysis, folder: Path, *, address: Address = no_address) -> tuple[Path, ...]:
    """Write the whole report into a folder, which is made where absent; return its paths, report.md first.

    The HTML links to the runs that `address` knows a page of. Equal arguments give equal bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recorded, analysis = analysis, labelled(analysis)
    pictures = draw_figures(analysis, folder)
    markdown = _markdown(analysis, pictures)
    texts: dict[ReportFormat, str] = {
        "markdown": markdown,
        "html": _html(analysis, markdown, pictures, folder, address),
        "json": _json(recorded),
        "latex": in_folds(paper_document(analysis), analysis.folds),
        "latex-wide": in_folds(_latex(analysis), analysis.folds),
    }
    written = []
    for kind, text in texts.items():
        path = folder / FORMATS[kind]
        path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
        written.append(path)
    shown = [picture for drawn in pictures.values() for picture in drawn]
    return (*written, *(folder / path for picture in shown for path in (picture.png, picture.svg, picture.pdf)))


def report_text(analysis: Analysis, kind: ReportFormat, *, address: Address = no_address) -> str:
    """Return one form of the report; the Markdown names its figures as files beside it, the HTML holds them."""
    if kind == "json":
        return _json(analysis)
    analysis = labelled(analysis)
    match kind:
        case "latex":
            return in_folds(paper_document(analysis), analysis.folds)
        case "latex-wide":
            return in_folds(_latex(analysis), analysis.folds)
        case "markdown":
            return _markdown(analysis, pictures_of(analysis))
        case "html":
            with temporary_folder() as folder:
                pictures = draw_figures(analysis, folder, endings=(".svg",))
                return _html(analysis, _markdown(analysis, pictures), pictures, folder, address)


def answers_text(analysis: Analysis) -> str:
    """Return the overview and a line per answer, for a terminal."""
    analysis = labelled(analysis)
    told = (in_folds(sentence(answer), analysis.folds) for answer in analysis.answers)
    answers = (f"{number}. {said}" for number, said in enumerate(told, start=1))
    return "\n".join(" ".join(plain(line).split()) for line in (*overview(analysis), *answers))


def _json(analysis: Analysis) -> str:
    document = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(analysis)}
    return plain_json(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


def _html(
    analysis: Analysis, markdown: str, pictures: Mapping[str, tuple[Picture, ...]], folder: Path, address: Address
) -> str:
    shown = [picture for drawn in pictures.values() for picture in drawn]
    drawings = {picture.png: (folder / picture.svg).read_bytes() for picture in shown}
    answers = Markup(in_folds(rows_html(first_screen(analysis), analysis, address=address), analysis.folds))  # noqa: S704
    return html_document(markdown, title=f"Ablation study {analysis.name}", pictures=drawings, answers=answers)


def _latex(analysis: Analysis) -> str:
    made = [(make(analysis), caption, make.__name__) for make, caption in _LATEX_TABLES]
    return latex_document(
        latex_table(table, caption=f"{caption} of study {analysis.name}.", label=f"tab:{name}")
        for table, caption, name in made
        if table.rows
    )


def _markdown(analysis: Analysis, pictures: Mapping[str, tuple[Picture, ...]]) -> str:
    found, screen, task = analysis.diagnostics, first_screen(analysis), TASKS[analysis.data.task]
    text = render(
        "report.md.jinja",
        analysis=analysis,
        screen=screen,
        rests_on=" ".join(filter(None, (*screen.lines, screen.cost_note))),
        sentences=sentences(analysis),
        factors=[(factor, ", ".join(map(level_text, levels))) for factor, levels in analysis.factors.items()],
        splits=_splits(analysis),
        seed_varies=_listed(analysis.seed_varies),
        baseline=baseline_levels_text(analysis),
        training_function=training_function(analysis),
        tuning=_tuning(analysis),
        figures=pictures,
        tables={**_tables(analysis), "answers": tables.answer_rows(screen)},
        estimands=tables.estimands(analysis),
        confusion_counts=[(matrix, error_tables.confusion_counts(matrix, analysis)) for matrix in analysis.confusion],
        diagnostics=list(_diagnostics(analysis)),
        failed=[run for run in found.missing if run.error],
        is_timed_alike=max(len(found.hosts), len(found.devices)) <= 1,
        cost_text=duration_text(analysis.cost.training_seconds),
        alpha=level_percent(analysis.alpha),
        most_alpha=level_percent(analysis.alpha * (1 + GROWTH_SHARE)),
        extension=extension_text(analysis),
        looks=", ".join(map(str, analysis.looks)),
        words=words_of(analysis),
        details_left_out=error_tables.details_left_out(analysis),
        collapse=collapse_text(analysis),
        score=task.scores[task.score],
        one_input=one_input(analysis),
        decisive=f"{analysis.answers[0].decisive_e_value:,.4g}",
        limit=_first_data(analysis).get("limit"),
        has_own_code=any(is_code(value) for _, value in flatten({"study": _mapped(analysis.study)})),
        study_file="\n".join(
            f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in analysis.study.items()
        ),
        correction=correction_text(analysis.folds) if analysis.folds is not None else "",
    )
    return in_folds(text, analysis.folds)


def _first_data(analysis: Analysis) -> Mapping[str, Any]:
    """Return the study's data section, the baseline's of several."""
    data = analysis.study.get("data") or {}
    return data[0] if isinstance(data, list | tuple) else data


def _mapped(value: Any) -> Any:
    """Return plain values with their lists as mappings too, so that every leaf has a path."""
    if isinstance(value, Mapping):
        return {str(key): _mapped(item) for key, item in value.items()}
    return {str(index): _mapped(item) for index, item in enumerate(value)} if isinstance(value, list | tuple) else value


def _tables(analysis: Analysis) -> dict[str, Table]:
    made: tuple[Callable[[Analysis], Table], ...] = (
        tables.scorecard,
        part_tables.parts,
        tuning_tables.tuned_and_untuned,
        tuning_tables.tuned_variants,
        tables.simple_effects,
        tables.interactions,
        tables.crossed,
        tables.failures,
        tables.variants,
        tables.first_variants,
        tables.secondary_metrics,
        tables.costs,
        tables.layers,
        learning_tables.curves,
        learning_tables.targets,
        learning_tables.matched_losses,
        learning_tables.best_epochs,
        error_tables.confusions,
        error_tables.confusion_differences,
        error_tables.disagreements,
        error_tables.calibration,
        error_tables.perplexities,
        error_tables.details,
        tables.sureness,
    )
    return {make.__name__: make(analysis) for make in made}


def sentences(analysis: Analysis) -> list[tuple[str, str, bool]]:
    """Return (headline, the rest of the sentence, whether a verdict decides it) per answer."""
    analysis = labelled(analysis)
    return [_split_sentence(analysis, index) for index in range(len(analysis.answers))]


def _split_sentence(analysis: Analysis, index: int) -> tuple[str, str, bool]:
    answer = analysis.answers[index]
    begin, whole = headline(answer), sentence(answer)
    rest = whole.removeprefix(begin)
    return in_folds(begin, analysis.folds), in_folds(rest, analysis.folds), answer.verdict.is_decided


def _tuning(analysis: Analysis) -> dict[str, Any]:
    """Return what the section on tuning says beside its tables; nothing where no variant was tuned."""
    if not analysis.tuning:
        return {}
    return {
        "budget": tuning_tables.budget_text(analysis),
        "spaces": tuning_tables.spaces(analysis),
        "cost": tuning_tables.cost_text(analysis),
        "trials": analysis.study["tune"]["trials"],
    }


def _splits(analysis: Analysis) -> str:
    if analysis.folds is not None:
        drawn = "its fold" if analysis.heldout_split == "test" else "a validation split drawn from the other folds"
        selected = ", and nothing is selected by them" if analysis.heldout_split == "test" else ""
        return f"A run is tested on its fold, once, at the end. Curves by epoch are drawn on {drawn}{selected}."
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
    if found.same_starts:
        yield f"{same_starts_text(found.same_starts)}."
    for missing in found.missing:
        yield f"Without a result: {missing.variant}/seed-{missing.seed}, {missing.reason}."
    for what, names in (("Diverged", found.diverged), ("Collapsed", found.collapsed)):
        if names:
            yield f"{what}: {_listed(names)}."
    for what, values in (("hosts", found.hosts), ("devices", found.devices)):
        mixed = " Times are not comparable between them." if len(values) > 1 else ""
        yield f"Runs on {len(values)} {what if len(values) != 1 else what[:-1]}: {_listed(values)}.{mixed}"
    for record in found.damaged:
        what = "; ".join(record.problems)
        yield f"Incomplete record: {record.variant}/seed-{record.seed}: {what}. It is left out where that is needed."
    for run in found.left_out[:_MOST_LISTED]:
        yield f"Left out: {run.name}{f' (run {run.run_id})' if run.run_id else ''}, {run.reason}."
    if len(found.left_out) > _MOST_LISTED:
        yield f"Left out besides: {len(found.left_out) - _MOST_LISTED} more runs; report.json lists them."
    yield from _skewed(analysis)
    if named := tuple(metric.label for metric in analysis.metrics if metric.unit == "percent"):
        yield f"In percent, as the training function returned it: {_listed(named)}. So is `meaningful` on it."
    if analysis.seeds < 4:
        yield f"{analysis.seeds} seed{'s' if analysis.seeds > 1 else ''}: only large differences can be found."


def _skewed(analysis: Analysis) -> Iterator[str]:
    """Yield which comparisons have skewed differences, and where too few seeds tell nothing of it."""
    for index in analysis.diagnostics.skewed:
        effect = analysis.answers[index].effect
        assert effect is not None
        limit, skewness = skewness_limit(effect.n), effect.skewness
        assert limit is not None
        assert skewness is not None
        yield (
            f"Comparison {index + 1} has skewed differences: a skewness of {signed(skewness, 2)} over "
            f"{effect.n} seeds, where 5 % of normal ones go beyond ±{limit:.2f}. Its interval is less sure."
        )
    few = [str(index) for index, answer in enumerate(analysis.answers, start=1) if _is_short(answer)]
    if few:
        named = f"comparison{'s' if len(few) > 1 else ''} {_listed(tuple(few))}"
        which = "all comparisons" if len(few) == len(analysis.answers) > 1 else named
        yield f"Whether differences are skewed cannot be told of fewer than {FEWEST_FOR_SKEWNESS} seeds: {which}."


def _is_short(answer: Answer) -> bool:
    """Whether an interval is of so few seeds that their skewness says nothing."""
    effect = answer.effect
    return effect is not None and effect.interval is not None and effect.n < FEWEST_FOR_SKEWNESS


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names) or "none recorded"
