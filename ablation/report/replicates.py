"""Says of folds what is said of seeds elsewhere: which they are, and how intervals over them are corrected."""

import re
from collections.abc import Iterator

from ablation.analysis.descriptive_records import FoldCorrection
from ablation.report.numbers import magnitude

_SEED = re.compile(r"(?<![\w/-])([Ss])eed(s?)(?![\w/-])")
_FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1[`~]*\s*?$", re.MULTILINE | re.DOTALL)
SOURCE = "Nadeau and Bengio, Inference for the generalization error, Machine Learning 52 (2003)"


def in_folds(text: str, folds: FoldCorrection | None) -> str:
    """Return a text that calls replicates seeds with the word for what they are, but for what is quoted in it."""
    if folds is None:
        return text
    return "".join(part if is_quoted else _SEED.sub(_fold, part) for part, is_quoted in _parts(text))


def correction_text(folds: FoldCorrection) -> str:
    """Say how intervals over folds are made, after whom, and what they are worth."""
    share = magnitude(folds.test_to_train, 3)
    return (
        f"Replicates are folds ({folds.folds} folds, {folds.repeats} time{'s' * (folds.repeats != 1)}). They share "
        "training examples, so their differences are correlated, and a plain t interval over them is too narrow. Every "
        f"interval over folds is the corrected one of {SOURCE}: the variance of a mean of J differences is taken to be "
        f"(1/J + n_test/n_train) s², with J - 1 degrees of freedom, n_test/n_train being {share} here. It is an "
        "approximation, mostly on the safe side; no exact one is known. There is one look, and folds do not grow: "
        "another number of them is another study"
    )


def _fold(found: re.Match[str]) -> str:
    return f"{'F' if found[1] == 'S' else 'f'}old{found[2]}"


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a text, and whether each is fenced code."""
    end = 0
    for fence in _FENCE.finditer(text):
        yield text[end : fence.start()], False
        yield fence[0], True
        end = fence.end()
    yield text[end:], False
