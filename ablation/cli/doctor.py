"""The command that says whether a study can run here: what was found, and what would refuse a study."""

from __future__ import annotations

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ablation.cli.group import USER_ERROR, main
from ablation.cli.options import (
    OrBlank,
    executor_option,
    insecure_option,
    json_option,
    state_option,
    storage_option,
    tracking_option,
)
from ablation.cli.say import print_result, say

if TYPE_CHECKING:
    from ablation.api.inspection import Inspection
    from ablation.executors.nodes.inspection import NodeFound

NODE = ("node", "fit", "jobs at a time", "host", "state folder", "versions", "folder", "free disk", "clock")


@main.command(example="studies/quick.yaml")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--device", type=OrBlank(click.STRING), help="auto, cpu, cuda or cuda:N.  [default: auto]")
@executor_option
@insecure_option
@storage_option
@tracking_option
@state_option
@json_option
def doctor(
    file: Path | None,
    device: str | None,
    executor: str | None,
    is_open: bool,
    storage: str | None,
    tracking_uri: str | None,
    state_dir: Path,
    as_json: bool,
) -> None:
    """Check whether a study can run here, and change nothing.

    This machine, its devices and stores, and with --executor dask:WHERE each worker; with a FILE, its data and models
    too. Exit status 2: a study would be refused, or none of the workers is fit.
    """
    from ablation.api.inspection import Asked, inspect
    from ablation.api.places import state_at, tracker_at
    from ablation.api.running import Execution
    from ablation.study import load_study

    asked = Asked(
        execution=Execution(device=device or "auto", executor=executor or "auto", is_open=is_open, storage=storage),
        state=state_at(state_dir),
        tracker=tracker_at(tracking_uri),
        study=partial(load_study, file) if file is not None else None,
    )
    found = inspect(asked)
    print_result(inspection_json(found) if as_json else inspection_text(found))
    for problem in found.problems:
        say(f"Error: {problem}")
    if found.problems:
        sys.exit(USER_ERROR)


def inspection_text(found: Inspection) -> str:
    """Return a table of what was found, one of the nodes, and why each that is not fit gets no runs."""
    from ablation.cli.layout import table_text, whole_table_text
    from ablation.output import plain, width, wrapped
    from ablation.report.table import Table

    rows = tuple((one.what, one.found if one.problem is None else "see below") for one in found.findings)
    text = whole_table_text(Table(head=("what", "found"), rows=rows, text_columns=2), width())
    if not found.nodes:
        return text
    nodes = table_text(Table(head=NODE, rows=tuple(map(_node_row, found.nodes)), text_columns=7), width())
    unfit = [f"{node.label} gets no runs: {node.why}" for node in found.nodes if node.why is not None]
    return "\n".join([text, "", nodes, *(wrapped(plain(line), width()) for line in unfit)])


def _node_row(node: NodeFound) -> tuple[str, ...]:
    from ablation.coordinator.planning import size_text

    return (
        node.label,
        "yes" if node.why is None else "no",
        ", ".join(f"{count} × {device}" for device, count in node.slots.items()),
        node.host,
        {True: "shared", False: "its own", None: ""}[node.is_shared],
        ", ".join(f"{name} {version}" for name, version in node.versions.items()),
        node.folder,
        size_text(node.free) if node.free is not None else "",
        f"{round(node.clock_s, 1) + 0.0:+.1f} s" if node.clock_s is not None else "",
    )


def inspection_json(found: Inspection) -> str:
    return json.dumps(
        {
            "is_refused": bool(found.problems),
            "machine": [dataclasses.asdict(one) for one in found.findings],
            "nodes": [{**dataclasses.asdict(node), "is_fit": node.why is None} for node in found.nodes],
        },
        indent=1,
    )
