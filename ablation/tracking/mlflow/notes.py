"""Writes what MLflow's UI shows as text: the notes of runs, and the description of an experiment.

The UI renders Markdown with showdown in its GitHub flavour, which is not CommonMark: it makes links of mentions and
pictures of `:words:`, and knows fewer backslash escapes. Entities are text in every flavour, so escaping is by them.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ablation.output import last_line
from ablation.records import AnswerSummary, Outcome, Plan, PlannedRun, seeds_text
from ablation.study.design import declared_levels
from ablation.study.labels import Labels, labels_of
from ablation.study.level_names import NOT_VARIED, level_text, short_name

NOTE = "mlflow.note.content"
MAX_NOTE = 8_000  # MLflow cuts a run's tag there
MAX_DESCRIPTION = 5_000  # what MLflow has always taken of an experiment's tag
_MOST_LINE = 1_500
_MOST_FOUND, _MOST_ABOUT = 1_000, 2_000  # characters, escaped
_MOST_RUN_NOTE = 500
# A table begins with two lines, and what is escaped is one: `|` is text, also where MLflow shows it unrendered.
_SPECIAL = re.compile(r"[\\`*\[\]{}<>&~@$]|:(?=\S)|(?<![^\W_])_|_(?![^\W_])|^(?:[#+=-]|\d+(?=\.))|(?i:www)(?=\.)")
_MOST_STUDIES = 20
_CUT = "…"
_SIGNED = re.compile(r"\n*<!-- written by ablation, which leaves it alone once it is edited \(([0-9a-f]{16})\) -->\s*$")


def study_note(
    overview: Sequence[str], answers: Sequence[AnswerSummary], *, links: Mapping[str, str], figure: str | None
) -> str:
    """Return the note of a study run: the overview's first line, the figure, the links by label, then the rest.

    Lines that do not fit into MAX_NOTE are left out from the end, which the note says.
    """
    first, *others = overview
    picture = [f"![Differences of every seed, their means and intervals]({figure})"] if figure else []
    head = [f"**{escaped(first)}**", *picture, *([_listed(links)] if links else [])]
    told = [f"{number}. {_answer(answer)}" for number, answer in enumerate(answers, start=1)]
    budget = MAX_NOTE - sum(len(part) + 2 for part in head)
    return "\n\n".join([*head, *fitted([*map(escaped, others), *told], budget, left_out="The report has the rest.")])


def run_note(
    planned: PlannedRun,
    plan: Plan,
    outcome: Outcome | None,
    *,
    metrics: Mapping[str, float],
    error: str | None,
    diverged_epoch: int | str | None,
) -> str:
    """Return the note of a run, signed: one line of what it is and how it ended, if it has."""
    metric = plan.locked.metric.name
    ended = {
        Outcome.DONE: f": {plan.metrics[metric].label} {metrics[metric]:.4g}" if metric in metrics else "",
        Outcome.FAILED: f": failed: {last_line(error)}",
        Outcome.DIVERGED: f": diverged in epoch {diverged_epoch or 'unknown'}",
    }
    about = f"{planned.variant}, seed {planned.seed} of study {plan.name}"
    return signed(escaped(about + (ended[outcome] if outcome is not None else ""), most=_MOST_RUN_NOTE))


def experiment_description(plan: Plan, *, found: str, links: Mapping[str, str], others: Mapping[str, str]) -> str:
    """Return what a study has found and what it asks, with links to it and to the experiment's other studies, signed.

    It begins with plain words: MLflow's list of experiments shows the first few as they are written. `found` is empty
    before there is a report.
    """
    about = _within(_MOST_ABOUT, str(plan.study.get("description") or ""))
    labels = labels_of(plan)
    questions = list(_questions(plan, labels))
    words = [text for text in (_within(_MOST_FOUND, found), about) if text] or questions[:1]
    named = f"Study **{escaped(plan.name)}**: {_measured(plan, labels)}"
    asked = [f"{number}. {question}" for number, question in enumerate(questions, start=1)]
    shown = dict(list(others.items())[:_MOST_STUDIES])
    beside = [f"Other studies here: {_listed(shown)}{_more(len(others) - len(shown))}"] if others else []
    head = [*words, *([_listed(links)] if links else [])]
    budget = MAX_DESCRIPTION - 200 - sum(len(part) + 2 for part in head)
    return signed("\n\n".join([*head, *fitted([named, *asked, *beside], budget, left_out="")]))


def signed(text: str) -> str:
    """Return a text with a comment at its end, unseen in the UI, by which `is_ours` knows it again."""
    return f"{text}\n\n<!-- written by ablation, which leaves it alone once it is edited ({_digest(text)}) -->"


def is_ours(text: str) -> bool:
    """Whether a text is one that `signed` returned, and nobody has edited since."""
    found = _SIGNED.search(text)
    return found is not None and found.group(1) == _digest(text[: found.start()])


def is_free(text: str) -> bool:
    """Whether a text may be replaced: there is none, or it is ours."""
    return not text.strip() or is_ours(text)


def escaped(text: str, *, most: int = _MOST_LINE) -> str:
    """Return text on one line, cut at a word after `most` characters, in which the UI's Markdown sees only text."""
    visible = "".join(" " if unicodedata.category(char) in ("Cc", "Cf", "Cs") else char for char in text)
    line = " ".join(visible.split())
    if len(line) > most:
        line = f"{line[:most].rpartition(' ')[0] or line[:most]} {_CUT}"
    return _SPECIAL.sub(lambda match: "".join(f"&#{ord(char)};" for char in match.group()), line)


def _within(room: int, text: str) -> str:
    """Return text that is escaped and then has at most so many characters."""
    most = room
    while len(line := escaped(text, most=most)) > room:
        most //= 2
    return line


def fitted(paragraphs: Sequence[str], budget: int, *, left_out: str) -> list[str]:
    """Return the paragraphs that fit into a number of characters, and a last one where some do not."""
    last = f"{_CUT} {left_out}".strip()
    kept: list[str] = []
    for number, paragraph in enumerate(paragraphs):
        used = sum(len(each) + 2 for each in kept)
        reserve = 0 if number == len(paragraphs) - 1 else len(last) + 2
        if used + len(paragraph) + 2 + reserve > budget:
            return [*kept, last]
        kept.append(paragraph)
    return kept


def _answer(answer: AnswerSummary) -> str:
    return f"**{escaped(answer.headline)}**{escaped(answer.sentence.removeprefix(answer.headline))}"


def _listed(links: Mapping[str, str]) -> str:
    return " · ".join(f"[{escaped(label, most=200)}]({address})" for label, address in links.items())


def _more(count: int) -> str:
    return f" and {count} more" if count else ""


def _questions(plan: Plan, labels: Labels) -> Iterable[str]:
    for question in plan.locked.questions:
        metric = escaped(plan.metrics[question.on or plan.locked.metric.name].label)
        levels = [f"{_name(labels, name)} {_level(labels, name, level)}" for name, level in question.at.items()]
        metric += f" {escaped('at ' + ', '.join(levels))}" if levels else ""
        if question.variant:
            yield f"How does {escaped(labels.variant(question.variant))} differ from the baseline, in {metric}?"
        elif question.effect:
            change = _change(plan, labels, question.effect, question.levels.get(question.effect, ()))
            yield f"What does {change} do to {metric}?"
        else:
            first, second = (
                _change(plan, labels, factor, question.levels.get(factor, ())) for factor in question.factors
            )
            yield f"Do {first} and {second} do more together than the sum of both, in {metric}?"


def _change(plan: Plan, labels: Labels, factor: str, levels: Sequence[Any] = ()) -> str:
    """Return `depth 2 → 3 or 4`: the baseline's level, then the others, or the two levels that are asked about."""
    if factor not in plan.baseline.levels:
        return "all other parts together"
    used = [variant.levels[factor] for variant in (plan.baseline, *plan.variants)]
    declared = declared_levels(plan.study).get(factor, ()) if NOT_VARIED in used[:1] else used
    found = dict.fromkeys(_level(labels, factor, level) for level in declared if level != NOT_VARIED)
    before, *others = found if not levels else (_level(labels, factor, level) for level in levels)
    return escaped(f"{_name(labels, factor)} {before} → {' or '.join(others)}", most=300)


def _name(labels: Labels, factor: str) -> str:
    return short_name(labels.factor(factor))


def _level(labels: Labels, factor: str, level: Any) -> str:
    return level_text(labels.level(factor, level))


def _measured(plan: Plan, labels: Labels) -> str:
    metric = plan.locked.metric
    least = metric.meaningful
    matters = f"; differences below {least:g} do not matter" if least else ""
    on = f" on {plan.data.name}" if plan.data.train_images else ""  # the user's training function reads its own
    return escaped(
        f"{len(plan.variants)} variants × {plan.replicates or seeds_text(plan.looks)}{on}, "
        f"compared with {labels.variant(plan.baseline.name)} by {plan.metrics[metric.name].label}{matters}."
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()[:16]
