"""Commands on a recorded study: its report again, two of its variants compared, its runs as a table, how far it is."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ablation.cli.group import USER_ERROR, main
from ablation.cli.options import Above, OrBlank, json_option, state_option, tracking_option
from ablation.cli.say import print_result, print_sentences, refuse, say, writing
from ablation.errors import AblationError
from ablation.output import plain

if TYPE_CHECKING:
    from ablation.report import ReportFormat


@main.command(example="quick --output report")
@click.argument("name", metavar="STUDY")
@click.option(
    "--format",
    "form",
    type=click.Choice(["terminal", "markdown", "html", "json", "latex", "latex-wide"]),
    default="terminal",
    show_default=True,
    help="What is printed.",
)
@click.option("--output", type=OrBlank(click.Path(file_okay=False, path_type=Path)), help="Write the report here too.")
@click.option(
    "--metric",
    "metrics",
    type=OrBlank(click.STRING),
    multiple=True,
    help="Judge by another metric: a deviation. NAME=FUNCTION:DIRECTION, such as f1=metrics.py:f1:maximize or "
    "f1=torchmetrics:MulticlassF1Score:maximize, computes one from the outputs that the runs kept; repeatable.",
)
@click.option(
    "--meaningful",
    type=OrBlank(Above(0)),
    help="Call what is below this too small to matter, above 0: a deviation.",
)
@click.option("--alpha", type=OrBlank(Above(0, below=1)), help="Another error rate, between 0 and 1: a deviation.")
@tracking_option
@json_option
def summarize(
    name: str,
    form: str,
    output: Path | None,
    metrics: tuple[str | None, ...],
    meaningful: float | None,
    alpha: float | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Make a study's report again, from MLflow alone."""
    from ablation.analysis import RuleChange
    from ablation.api.asked import asked_metrics
    from ablation.api.places import tracker_at
    from ablation.pipeline import summarize_study

    named, asked = asked_metrics(tuple(metric for metric in metrics if metric is not None))
    change = RuleChange(metric=named, meaningful=meaningful, alpha=alpha)
    tracker = tracker_at(tracking_uri)
    record, analysis = summarize_study(name, tracker=tracker, change=change, asked=asked)
    address = partial(tracker.run_address, record)
    from ablation.report import report_text, write_report

    if output is not None:
        writing(output, lambda: write_report(analysis, output, address=address))
    if as_json or form != "terminal":
        kind = "json" if as_json else cast("ReportFormat", form)
        print_result(report_text(analysis, kind, address=address), nl=False)
        return
    from ablation.cli.summary import analysis_text

    print_result(f"{analysis_text(analysis)}\n")
    print_sentences(f"Report: {output / 'report.md'}" if output else "The whole report, with figures: --output DIR")


@main.command(example="quick depth=2,normalization=none depth=3,normalization=batch")
@click.argument("names", metavar="STUDY A B | STUDY/A OTHER/B", nargs=-1, required=True)
@tracking_option
@json_option
def compare(names: tuple[str, ...], tracking_uri: str | None, as_json: bool) -> None:
    """Compare two variants of a study, or of two studies.

    The differences are B minus A. The verdict on the primary metric is at alpha over all pairs of variants. Runs of two
    studies are paired by seed where a seed means the same in both: equal study seed, data and training.
    """
    from ablation import api
    from ablation.cli.summary import comparison_json, comparison_text

    (study, first), (other, second) = _compared(names)
    comparison = api.compare(study, first, second, second_study=other, tracking_uri=tracking_uri)
    print_result(comparison_json(comparison) if as_json else comparison_text(comparison))


def _compared(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the study and the variant of each side."""
    if len(names) == 3:
        return [(names[0], names[1]), (names[0], names[2])]
    parted = [name.partition("/") for name in names]
    if len(names) != 2 or not all(study and variant for study, _, variant in parted):
        refuse("give a study and two of its variants, or two variants as STUDY/VARIANT @ compare " + " ".join(names))
    return [(study, variant) for study, _, variant in parted]


@main.command(example="quick --epochs --output epochs.csv")
@click.argument("name", metavar="STUDY")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    default=Path("-"),
    help="File to write; else it is printed.",
)
@click.option("--epochs", "by_epoch", is_flag=True, help="A row per epoch instead of a row per run.")
@tracking_option
def export(name: str, output: Path, by_epoch: bool, tracking_uri: str | None) -> None:
    """Write a study's runs as CSV, for pandas.

    A row has the factors, the seed, the outcome, the metrics and the ID of the run in MLflow.
    """
    from ablation.api.places import tracker_at
    from ablation.pipeline import export_study

    table = export_study(name, tracker=tracker_at(tracking_uri), by_epoch=by_epoch)
    text = table.to_csv(index=False, lineterminator="\n")
    if output == Path("-"):
        print_result(plain(text) if sys.stdout.isatty() else text, nl=False)
        return
    writing(output, lambda: output.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n"))
    print_sentences(f"Wrote {len(table)} rows to {output}.")


@main.command(example="quick")
@click.argument("name", metavar="[STUDY]", required=False)
@tracking_option
@state_option
@json_option
def status(name: str | None, tracking_uri: str | None, state_dir: Path, as_json: bool) -> None:
    """Say how far a study is and what failed, or list all studies."""
    from ablation.analysis import StudyLooks
    from ablation.api.places import state_at, tracker_at
    from ablation.cli.tables import StudyStanding, status_json, status_text
    from ablation.coordinator.lease import has_gone
    from ablation.pipeline import find_study

    tracker = tracker_at(tracking_uri)
    records, is_unread = [], False
    for each in [name] if name else sorted(tracker.study_names()):
        try:
            records.append(find_study(each, tracker=tracker))
        except AblationError as error:
            if name:
                raise
            is_unread = True
            say(f"Error: {error}")
    state = state_at(state_dir)
    found = [
        StudyStanding(
            record=record,
            runs=looks.recorded_runs,
            look=looks.text,
            unrecorded=state.unrecorded(record.plan.name),
            is_interrupted=record.status == "RUNNING" and (holder is None or has_gone(holder)),
            gone=holder,
        )
        for record in records
        for holder in [tracker.holder(record.study_run_id)]
        for runs in [tracker.recorded_runs(record, with_details=False)]
        for looks in [StudyLooks.of(record.plan, runs, is_out_of_budget=record.spending.is_out)]
    ]
    if found or as_json or not is_unread:
        print_result(status_json(found) if as_json else status_text(found))
    if is_unread:
        sys.exit(USER_ERROR)
