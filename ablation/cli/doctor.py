"""The command that says whether a study can run here: a table of what was found, and what would refuse a study."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablation.cli.group import USER_ERROR, main
from ablation.cli.options import (
    OrBlank,
    json_option,
    state_option,
    storage_option,
    tracking_option,
)
from ablation.cli.say import print_result, say

if TYPE_CHECKING:
    from ablation.api.inspection import Finding

REFUSED = "a study would be refused"


@main.command(example="studies/quick.yaml")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--device", type=OrBlank(click.STRING), help="auto, cpu, cuda or cuda:N.  [default: auto]")
@storage_option
@tracking_option
@state_option
@json_option
def doctor(
    file: Path | None,
    device: str | None,
    storage: str | None,
    tracking_uri: str | None,
    state_dir: Path,
    as_json: bool,
) -> None:
    """Check whether a study can run here, and change nothing.

    This machine, its devices and stores; with a FILE, its data and models too. Exit status 2: a study would be refused.
    """
    from ablation.api.inspection import Asked, findings_of
    from ablation.api.places import state_at, tracker_at
    from ablation.study import load_study

    asked = Asked(
        study=partial(load_study, file) if file is not None else None,
        device=device or "auto",
        state=state_at(state_dir),
        tracker=tracker_at(tracking_uri),
        storage=storage,
    )
    findings = list(findings_of(asked))
    print_result(findings_json(findings) if as_json else findings_text(findings))
    problems = [f"{one.what}: {one.problem}" for one in findings if one.problem is not None]
    for problem in problems:
        say(f"Error: {problem}")
    if problems:
        sys.exit(USER_ERROR)


def findings_text(findings: Sequence[Finding]) -> str:
    from ablation.cli.layout import whole_table_text
    from ablation.output import width
    from ablation.report.table import Table

    rows = tuple((one.what, one.found if one.problem is None else REFUSED) for one in findings)
    return whole_table_text(Table(head=("what", "found"), rows=rows, text_columns=2), width())


def findings_json(findings: Sequence[Finding]) -> str:
    machine = [{"what": one.what, "found": one.found, "problem": one.problem} for one in findings]
    return json.dumps({"is_refused": any(one.problem is not None for one in findings), "machine": machine}, indent=1)
