"""What a report says of a task: what its inputs are called, when a run has collapsed, what its errors are."""

from collections.abc import Mapping
from dataclasses import dataclass

from ablation.analysis.analysis_record import Analysis
from ablation.records import TASKS, TaskName
from ablation.report.names import training_function


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskWords:
    """What a report says of one task.

    `units` says in what the metrics beside the study's stand; `collapse` when a run has collapsed, of `{margin}` and
    the `{level}` of a constant answer. `section` is the heading of the errors, `errors` what is below it, `details`
    what is said above the table of the task's own numbers. `calibration` are the metrics of probabilities by their
    names in the table, `probabilities` what these are, `counted` what confusion counts.
    """

    units: str
    collapse: str
    section: str
    errors: str
    details: str
    calibration: Mapping[str, str]
    probabilities: str = ""
    counted: str = ""


WORDS: Mapping[TaskName, TaskWords] = {
    "classification": TaskWords(
        units="accuracies and areas in percent, losses in nats",
        section="Errors and calibration",
        probabilities="Calibration",
        collapse="test accuracy at most {margin} points above the {level} % of always answering the largest class, and "
        "at least 95 % of its answers in one class",
        errors="confusion, disagreement, calibration",
        details="",
        calibration={"test_loss": "NLL (nats)", "test_brier_score": "Brier score"},
    ),
    "regression": TaskWords(
        units="RMSE, MAE and areas in the unit of the targets",
        section="Errors",
        collapse="test R² at most {margin_as_is}, that of always answering the mean being 0, and at least 95 % of its "
        "predictions nearly the same: within 5 % of the targets' standard deviation around their median",
        errors="errors on test",
        details="Quantiles of the errors on test, prediction minus target, in the unit of the targets: means over "
        "seeds. Below 0 predictions are too low, above 0 too high.",
        calibration={},
    ),
    "multilabel": TaskWords(
        units="shares and areas in percent, losses in nats",
        section="Errors of labels",
        probabilities="Binary cross entropy",
        collapse="test AUROC, the labels' mean, at most {margin} points above the 50 % of answers that tell nothing, "
        "and at least 95 % of its answers to a label the same, on average over the labels",
        errors="F1 of each label, calibration",
        details="F1 of each label on test: means over seeds, differences to the baseline descriptive (95 %, "
        "unadjusted).",
        calibration={"test_loss": "binary cross entropy (nats)"},
    ),
    "tokens": TaskWords(
        units="accuracies and areas in percent, losses in nats",
        section="Likelihood of tokens",
        probabilities="Negative log-likelihood, in nats and in bits,",
        collapse="test accuracy per token at most {margin} points above the {level} % of always answering the most "
        "frequent token, and at least 95 % of its answers the same token",
        errors="negative log-likelihood, bits and perplexity per token",
        details="",
        calibration={"test_nll": "NLL per token (nats)", "test_bits": "bits per token"},
    ),
    "segmentation": TaskWords(
        units="shares and areas in percent, losses in nats",
        section="Errors of classes",
        probabilities="Negative log-likelihood",
        collapse="test pixel accuracy at most {margin} points above the {level} % of always answering the largest "
        "class, and at least 95 % of its pixels in one class",
        errors="IoU of each class, confusion of pixels, calibration",
        details="IoU of each class on test: means over seeds, differences to the baseline descriptive (95 %, "
        "unadjusted). A class that no target has and no answer names has none.",
        calibration={"test_loss": "NLL per pixel (nats)"},
        counted="pixels",
    ),
}
"""By task."""


def words_of(analysis: Analysis) -> TaskWords:
    return WORDS[analysis.data.task]


def can_collapse(analysis: Analysis) -> bool:
    """Whether it is known of a study's runs if they have collapsed: of what a training function of its own measured,
    only where its data has classes."""
    return bool(analysis.data.classes) or not (TASKS[analysis.data.task].has_classes or training_function(analysis))


def collapse_text(analysis: Analysis) -> str:
    """Return when a run of this study has collapsed, nothing where that is not known of any."""
    if not can_collapse(analysis):
        return ""
    return words_of(analysis).collapse.format(
        margin=f"{100 * analysis.collapse_margin:.4g}",
        margin_as_is=f"{analysis.collapse_margin:.4g}",
        level=f"{100 * analysis.data.largest_class_share:.4g}",
    )


def one_input(analysis: Analysis) -> str:
    """Return what one of the study's inputs is called: `image`, `sequence`, `example`."""
    return analysis.data.inputs.removesuffix("s")
