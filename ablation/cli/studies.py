"""Commands on a study file: run it, show it before it costs anything, list its model's modules, write one."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ablation.cli.group import SOME_RUNS_FAILED, main
from ablation.cli.interruption import interruptible
from ablation.cli.options import (
    SEEDS_HELP,
    Above,
    Fuse,
    OrBlank,
    Seeds,
    executor_option,
    insecure_option,
    json_option,
    state_option,
    storage_option,
    study_options,
    tracking_option,
)
from ablation.cli.say import print_result, print_sentences, refuse, say

if TYPE_CHECKING:
    from ablation.study import Study
    from ablation.study.define_own import Written

SEVERAL = re.compile(r";(?=\s*[A-Za-z_][\w.\[\]]*=)")  # `;` before another PATH=, as MLproject has one `set` for all


@main.command(example="studies/quick.yaml --seeds 5,8,12 --budget 30m")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@study_options
@click.option("--device", type=OrBlank(click.STRING), help="auto, cpu, cuda or cuda:N.  [default: auto]")
@executor_option
@insecure_option
@click.option("--workers", type=OrBlank(click.IntRange(1, 1024)), help="Jobs at a time; with an engine, at most.")
@click.option(
    "--fuse",
    type=OrBlank(Fuse()),
    help="Runs that a job trains together: auto (on a GPU, where it is faster), or a number; 1 is none.",
)
@click.option(
    "--cudnn-benchmark",
    type=OrBlank(click.Choice(["off", "on"])),
    help="Whether cuDNN chooses its algorithms on a GPU by timing them in a graph's first steps: the next time it may "
    "choose others, so that the same run differs in rounding.  [default: off]",
)
@click.option("--retry-failed", is_flag=True, help="Train the runs again that have failed.")
@click.option("--fresh", "is_fresh", is_flag=True, help="Delete what is recorded of the study, and train it all anew.")
@click.option(
    "--reuse", "is_reused", is_flag=True, help="Take what was trained before the study was deleted in MLflow."
)
@click.option(
    "--budget",
    type=OrBlank(click.STRING),
    metavar="TIME",
    help="Wall-clock time of the study's executions in all: 2h, 90m, 1h30m, 45s. What would not fit is not begun; more "
    "of it resumes the study.  [default: the file's]",
)
@storage_option
@tracking_option
@state_option
@json_option
def study(
    file: Path,
    device: str | None,
    executor: str | None,
    is_open: bool,
    workers: int | None,
    fuse: int | None,
    cudnn_benchmark: str | None,
    retry_failed: bool,
    is_fresh: bool,
    is_reused: bool,
    budget: str | None,
    storage: str | None,
    tracking_uri: str | None,
    state_dir: Path,
    as_json: bool,
    **changes: Any,
) -> None:
    """Run a study, or resume it: plan, train, report."""
    from ablation.api.places import state_at, tracker_at
    from ablation.api.progress import outcome_json, outcome_text
    from ablation.api.result import StudyResult
    from ablation.api.running import Execution, execute

    execution = Execution(
        device=device or "auto",
        executor=executor or "auto",
        is_open=is_open,
        workers=workers,
        fuse=fuse,
        cudnn_benchmark=cudnn_benchmark == "on",
        storage=storage,
        retry_failed=retry_failed,
        is_fresh=is_fresh,
        is_reused=is_reused,
        budget=budget,
    )
    with interruptible():
        checked = load(file, **changes)
        tracker = tracker_at(tracking_uri, is_launched=True)
        outcome = execute(checked, execution, tracker=tracker, state=state_at(state_dir), is_quiet=as_json, say=say)
        print_result(outcome_json(outcome, tracker) if as_json else outcome_text(outcome, tracker))
    if not StudyResult.of(outcome, tracker).has_ended_well:
        sys.exit(SOME_RUNS_FAILED)


@main.command(example="studies/quick.yaml --noise 0.7")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@study_options
@click.option("--device", type=OrBlank(click.STRING), help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option(
    "--noise",
    type=OrBlank(Above(0.0)),
    help="SD of one variant's runs from seed to seed, as the report shows the metric: 0.7 is 0.7 points; "
    "as it returns the metric for a training function of your own. Differences are then told in that unit too.",
)
@click.option(
    "--noise-from", type=OrBlank(click.STRING), metavar="STUDY", help="Take the noise from a study recorded in MLflow."
)
@tracking_option
@state_option
@json_option
def plan(
    file: Path,
    device: str | None,
    noise: float | None,
    noise_from: str | None,
    tracking_uri: str | None,
    state_dir: Path,
    as_json: bool,
    **changes: Any,
) -> None:
    """Show a study before it costs anything.

    Its variants, parameters, FLOPs, time, and what differences it can find.
    """
    checked = load(file, **changes)
    from ablation.api.places import state_at
    from ablation.api.studies import Noise, preview
    from ablation.cli.tables import preview_json, preview_text

    source = Noise(value=noise, study=noise_from, tracking_uri=tracking_uri)
    shown = preview(checked, device or "auto", state_at(state_dir), source)
    print_result(preview_json(shown) if as_json else preview_text(shown))


@main.command(example="studies/quick.yaml --removable")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@study_options
@click.option("--removable", is_flag=True, help="Only those that can be removed.")
@state_option
@json_option
def components(file: Path, removable: bool, state_dir: Path, as_json: bool, **changes: Any) -> None:
    """List the modules of a study's model.

    Type, parameters, FLOPs, and whether each can be removed.
    """
    checked = load(file, **changes)
    from ablation.api.places import state_at
    from ablation.cli.tables import components_json, components_text
    from ablation.preview import study_components

    modules = study_components(checked, state=state_at(state_dir))
    found = [one for one in modules if one.is_removable or not removable]
    print_result(components_json(found) if as_json else components_text(found))


@main.command(example="--training train.py:train --output mine.yaml")
@click.option("--training", help="Your training function, FILE.py:NAME: its parameters become settings.")
@click.option("--model", help="Your model, FILE.py:NAME, likewise.")
@click.option("--data", default="digits", show_default=True, help="digits, cifar10, images, or FILE.py:NAME.")
@click.option("--metric", metavar="NAME:DIRECTION", help="What is compared, such as rmse:minimize; with your own code.")
@click.option("--depth", default="3,4", show_default=True, metavar="LEVELS", help="The first is the baseline's.")
@click.option("--normalization", default="none,batch", show_default=True, metavar="LEVELS", help="Likewise.")
@click.option("--seeds", type=Seeds(), default=5, show_default=True, help=SEEDS_HELP)
@click.option("--epochs", type=click.IntRange(1), default=20, show_default=True, help="Epochs of each run.")
@click.option("--name", default="my-study", show_default=True, help="The study's name.")
@click.option("--root", help="Where the data is: needed for images.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write; else it is printed.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.pass_context
def define(
    context: click.Context,
    training: str | None,
    model: str | None,
    data: str,
    metric: str | None,
    depth: str,
    normalization: str,
    seeds: int | Mapping[str, Any],
    epochs: int,
    name: str,
    root: str | None,
    output: Path | None,
    force: bool,
) -> None:
    """Write a commented study file.

    Of your own code with --training or --model, else over the depth and normalization of a CNN.
    """
    if output is not None and not output.parent.is_dir():
        refuse(f"cannot write {output}: there is no folder {output.parent}; make it, or name another file @ --output")
    path = os.fsencode(output).decode(errors="backslashreplace") if output is not None else "FILE"
    if training is not None or model is not None:
        _check_options(
            context, ("depth", "normalization", "epochs", "root"), "of the built-in CNN; edit the file instead"
        )
        named = {"training": training, "model": model, "data": data if _is_given(context, "data") else None}
        written = _own_study(named, output, path=path, name=name, seeds=seeds, metric=metric)
        _write(output, written.text, force=force)
        for said in written.to_fill_in:
            (print_sentences if output is not None else say)(f"To fill in: {said}.")
        return
    _check_options(context, ("metric",), "with --training or --model")
    from ablation.study import parse_study
    from ablation.study.define import study_text

    if data not in ("digits", "cifar10", "images"):
        refuse("give --model or --training with data of your own; built in are digits, cifar10, images @ --data")
    factors = {
        "model.depth": levels_of("--depth", depth),
        "model.normalization": levels_of("--normalization", normalization),
    }
    root = _seen_from(output, root) if output is not None and root else root
    text = study_text(path=path, name=name, data=data, root=root, factors=factors, seeds=seeds, epochs=epochs)
    parse_study(text.encode(), source="the study so defined")
    _write(output, text, force=force)


def _is_given(context: click.Context, option: str) -> bool:
    return context.get_parameter_source(option) is not click.core.ParameterSource.DEFAULT


def _check_options(context: click.Context, options: tuple[str, ...], where: str) -> None:
    """Refuse options that would be ignored."""
    given = [f"--{option}" for option in options if _is_given(context, option)]
    if given:
        refuse(f"{', '.join(given)} {'is' if len(given) == 1 else 'are'} {where}")


def _own_study(
    named: Mapping[str, str | None],
    output: Path | None,
    *,
    path: str,
    name: str,
    seeds: int | Mapping[str, Any],
    metric: str | None,
) -> Written:
    """Return the study file of one's own code, named as the file sees it."""
    from ablation.code import CodeFolders, code_problem, is_code
    from ablation.study.define_own import OwnCode, own_study

    for option, code in named.items():
        if code is not None and (option != "data" or ":" in code or "." in code) and not is_code(code):
            refuse(f"{code_problem(code) or f'{code!r} names no code; write FILE.py:NAME'} @ --{option}")
    if metric is not None and not re.fullmatch(r"[A-Za-z][\w.-]*:(maximize|minimize)", metric):
        refuse(f"write NAME:maximize or NAME:minimize, not {metric!r} @ --metric")
    folder = output.parent if output is not None else Path()
    seen = {option: _code_seen_from(output, code) for option, code in named.items()}
    folders = CodeFolders(folders=tuple(dict.fromkeys((folder.resolve(), Path.cwd()))))
    return own_study(OwnCode(**seen), folders, path=path, name=name, seeds=seeds, metric=metric)


def _code_seen_from(output: Path | None, code: str | None) -> str | None:
    """Return a name of code as a file has it: the path of a source file starts at the study file's folder."""
    location, colon, attribute = (code or "").rpartition(":")
    if output is None or not location.endswith(".py"):
        return code
    return f"{_seen_from(output, location)}{colon}{attribute}"


def _write(output: Path | None, text: str, *, force: bool) -> None:
    if output is None:
        print_result(text, nl=False)
        return
    try:
        with output.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        refuse(f"{output} is there already; --force writes over it")
    except OSError as error:
        refuse(f"cannot write {output}: {error.strerror}")
    print_sentences(f"Wrote {output}. Next: `ablation plan {shlex.quote(str(output))}`")


def load(
    file: Path,
    *,
    changes: tuple[str, ...],
    name: str | None,
    seeds: int | Sequence[int] | Mapping[str, Any] | None,
    depth: str | None,
    normalization: str | None,
    epochs: int | None,
) -> Study:
    """Read and check a study file with the command line's changes."""
    from ablation.study import Override, load_study, parse_override

    overrides = [parse_override(part) for text in changes for part in SEVERAL.split(text) if part.strip()]
    if seeds is not None:
        overrides.append(Override(path="seeds", value=seeds))
    if epochs is not None:
        overrides.append(Override(path="training.epochs", value=epochs))
    levels = {
        path: levels_of(f"--{path.rpartition('.')[2]}", text)
        for path, text in (("model.depth", depth), ("model.normalization", normalization))
        if text is not None
    }
    return load_study(file, overrides=overrides, levels=levels, name=name)


def _seen_from(file: Path, root: str) -> str:
    """Return a path as it was typed as a file names it: relative paths in a study file start at its folder."""
    stays = root.startswith("~") or Path(root).is_absolute() or file.parent == Path()
    return root if stays else os.path.relpath(root, file.parent)


def levels_of(option: str, text: str) -> list[Any]:
    from ablation.study import read_value

    try:
        levels = read_value(f"[{text}]")
    except ValueError as error:
        refuse(f"{error} @ {option} {text}")
    if not levels:
        refuse(f"needs at least one level @ {option}")
    return list(levels)
