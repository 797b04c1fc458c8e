"""Says at which look an answer was judged, what came after it, and what comes next."""

from ablation.analysis.answer_records import Answer, Look, Verdict
from ablation.analysis.sequential import State
from ablation.report.numbers import count_text, duration_text
from ablation.report.prose.amounts import first_few, seeds_text
from ablation.report.prose.budget import what_did_not_fit


def look_text(answer: Answer) -> str:
    """Say at which of several looks the answer was decided or given up."""
    look = answer.look
    if not look.seeds and answer.verdict.is_judged:
        return f"There is no interval yet: comparisons are judged together, first with {look.looks[0]} seeds."
    if len(look.looks) == 1 or answer.is_grown or not answer.verdict.is_judged:
        return ""
    of = f"look {look.number} of {len(look.looks)}, {look.seeds} seeds"
    if answer.verdict.is_decided:
        return f"Decided at {of}."
    if look.state == State.FUTILE:
        return f"Stopped at {of}: not decidable within the plan's {look.looks[-1]}."
    if look.next is not None and look.next > look.looks[-1]:
        return f"Judged last at {of}."
    return f"Open after {of}."


def growth(answer: Answer) -> str:
    effect = answer.effect
    if not answer.is_grown or effect is None or effect.e_value is None:
        return ""
    came = "It was added after results could be seen" if answer.look.is_added else "Seeds were added beyond the plan"
    needed = f"the {answer.decisive_e_value:,.4g} needed"
    if effect.e_value > answer.decisive_e_value:
        found = f"{effect.e_value:.3g}, above {needed}"
    elif answer.verdict.is_decided and answer.verdict is not Verdict.NO_MEANINGFUL_DIFFERENCE:
        found = f"with fewer seeds it was above {needed}, and is {effect.e_value:.3g} now"
    else:
        found = f"{effect.e_value:.3g}, not above {needed}"
    return f"{came}, so the e-value decides: {found}."


def since(answer: Answer) -> str:
    """Say what came after the look that decided, and what versions before planned looks said."""
    said = []
    if (later := answer.look.later_unstable) and answer.verdict.is_judged:
        number = len(later)
        runs = "a later run" if number == 1 else f"{count_text(number)} later runs"
        said.append(f"Since then {runs} diverged or collapsed ({first_few(later)}), which changes no verdict.")
    if answer.earlier_verdict is not None:
        said.append(f"Versions before planned looks called this “{answer.earlier_verdict}”.")
    return " ".join(said)


def next_step(answer: Answer) -> str:
    look = answer.look
    if look.state == State.OPEN and answer.verdict is Verdict.UNDECIDED:
        return _next_look(look)
    if look.state == State.OUT_OF_BUDGET:
        return what_did_not_fit(look)
    seeds = seeds_text(answer)
    if not seeds:
        return ""
    gain = f"would bring the e-value above {answer.decisive_e_value:,.4g} if the difference stays as it is"
    time = f", {duration_text(answer.seconds_per_seed)} of training each" if answer.seconds_per_seed else ""
    return f"Next: {seeds} more seed{'s' if seeds != '1' else ''} beyond the plan{time}, {gain}."


def _next_look(look: Look) -> str:
    if look.next is None:
        return "The seeds that would judge it next are not asked for, so it stays open."
    of = f"the look at {look.next} seeds" if look.next <= look.looks[-1] else f"{look.next} seeds, beyond the plan"
    return f"Next: {of}; the same command resumes."
