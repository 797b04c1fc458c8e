"""Turns answers into the records that trackers keep of them, each under a name of its own."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.answer_records import Answer
from ablation.output import plain
from ablation.records import AnswerSummary
from ablation.report.labels import labelled
from ablation.report.names import comparison_text
from ablation.report.prose import headline, sentence
from ablation.report.prose.costs import cost_changes
from ablation.report.prose.verdicts import verdict_text
from ablation.report.replicates import in_folds

MOST_NAME = 100
"""Characters of a name: a key is longer by what a tracker puts around it, and may have 250."""
_WORDS = str.maketrans({"→": " to ", "×": " and ", "≠": " not ", "=": " "})
_NUMBERED = re.compile(r" - question \d+$")
_NO_KEY = re.compile(r"[^\w\-. ]|(?<!\d)\.|\.(?!\d)")
"""What no tracker takes in a key, and besides `/` and `:`, which lead elsewhere or are refused on some systems; a dot
stays within a number alone, so that no name ends like a key of another one."""


def answer_summaries(analysis: Analysis) -> tuple[AnswerSummary, ...]:
    """Return a record per answer, in the plan's order; labels are in its words, and not in its name."""
    names = answer_names(analysis.answers)
    found = (_summary(answer, name) for answer, name in zip(labelled(analysis).answers, names, strict=True))
    return tuple(
        replace(
            each,
            headline=in_folds(each.headline, analysis.folds),
            sentence=in_folds(each.sentence, analysis.folds),
            verdict=in_folds(each.verdict, analysis.folds),
        )
        for each in found
    )


def answer_names(answers: Sequence[Answer]) -> list[str]:
    """Return `depth 2 to 3`, `normalization none to batch on test_loss`: short names, unlike each other.

    Of those that would be alike, or are for a store that tells no upper case, the later ones have their number.
    """
    names: list[str] = []
    taken: set[str] = set()
    for number, answer in enumerate(answers, start=1):
        name = key_name(_about(answer)) or f"question {number}"
        if name.casefold() in taken or _NUMBERED.search(name):
            ending = f" - question {number}"
            name = f"{name[: MOST_NAME - len(ending)].rstrip()}{ending}"
        taken.add(name.casefold())
        names.append(name)
    return names


def key_name(text: str) -> str:
    """Return a text in characters that every tracker takes in a key, cut at a word; it may be empty."""
    words = " ".join(_NO_KEY.sub(" ", unicodedata.normalize("NFKC", text).translate(_WORDS)).split())
    return words if len(words) <= MOST_NAME else (words[:MOST_NAME].rpartition(" ")[0] or words[:MOST_NAME])


def _about(answer: Answer) -> str:
    on = "" if answer.is_primary else f" on {answer.metric.name}"
    return f"{comparison_text(answer)}{on}"


def _summary(answer: Answer, name: str) -> AnswerSummary:
    effect = answer.effect
    interval = effect.interval if effect is not None else None
    return AnswerSummary(
        name=name,
        change=_line(comparison_text(answer)),
        headline=_line(headline(answer)),
        sentence=_line(sentence(answer)),
        verdict=verdict_text(answer),
        is_decided=answer.verdict.is_decided,
        metric=answer.metric.label,
        unit=answer.metric.unit,
        mean=effect.mean if effect is not None else None,
        low=interval.low if interval is not None else None,
        high=interval.high if interval is not None else None,
        seeds=effect.n if effect is not None else 0,
        cost=cost_changes(answer),
    )


def _line(text: str) -> str:
    return " ".join(plain(text).split())
