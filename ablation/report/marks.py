"""Gives every verdict its name for style sheets, its shape and its colour: the same in all forms of a report."""

from collections.abc import Mapping
from dataclasses import dataclass

from ablation.analysis.answer_records import Answer, Verdict
from ablation.drawing import BLUE, GREEN, GREY, VERMILLION

_PURPLE = "#7b3f72"  # dark enough for words, as Okabe and Ito's is not


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How a verdict looks: `name` is a CSS class, `shape` one character, `colour` for paper, `style` a terminal's."""

    name: str
    shape: str
    colour: str
    style: str


INTERPLAY = Mark(name="interplay", shape="∗", colour=_PURPLE, style="magenta")
CROSSOVER = Mark(name="crossover", shape="×", colour=_PURPLE, style="magenta")
MARKS: Mapping[Verdict, Mark] = {
    Verdict.HELPS: Mark(name="helps", shape="▲", colour=BLUE, style="blue"),
    Verdict.HURTS: Mark(name="hurts", shape="▼", colour=VERMILLION, style="red"),
    Verdict.BETTER_THAN_SUM: INTERPLAY,
    Verdict.WORSE_THAN_SUM: INTERPLAY,
    Verdict.NO_MEANINGFUL_DIFFERENCE: Mark(name="no-meaningful-difference", shape="=", colour=GREEN, style="green"),
    Verdict.UNDECIDED: Mark(name="undecided", shape="?", colour=GREY, style=""),
    Verdict.OUT_OF_BUDGET: Mark(name="out-of-budget", shape="‖", colour=GREY, style=""),
    Verdict.INCOMPLETE: Mark(name="incomplete", shape="…", colour=GREY, style=""),
    Verdict.UNSTABLE: Mark(name="unstable", shape="!", colour=GREY, style=""),
    Verdict.ONE_SEED: Mark(name="one-seed", shape="1", colour=GREY, style=""),
    Verdict.NO_VARIATION: Mark(name="no-variation", shape="0", colour=GREY, style=""),
}


def mark_of(answer: Answer) -> Mark:
    """Return how an answer looks: a crossover is one whatever its average is."""
    return CROSSOVER if answer.is_crossover else MARKS[answer.verdict]
