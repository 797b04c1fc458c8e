"""The command line: thin commands over the pipeline. Only click is imported until a command runs."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

import click
from click.core import ParameterSource

from ablation import __version__
from ablation.commands import commands
from ablation.errors import AblationError, AddressInvalid, is_no_room, os_error_text
from ablation.output import make_unfailing, plain

if TYPE_CHECKING:
    from ablation.report import ReportFormat
    from ablation.storage.state import State
    from ablation.study import Study
    from ablation.tracking import Tracker

F = TypeVar("F", bound=Callable[..., Any])

USER_ERROR = 2
MOST_RUNS_OF_A_JOB = 1024
SEVERAL = re.compile(r";(?=\s*[A-Za-z_][\w.\[\]]*=)")  # `;` before another PATH=, as MLproject has one `set` for all
SOME_RUNS_FAILED = 1


class _Command(click.Command):
    """Notes the options that lead to stores and state, for the commands that messages name."""

    def invoke(self, ctx: click.Context) -> Any:
        given = {
            param.opts[0]: str(ctx.params[param.name])
            for param in self.params
            if param.name in ("storage", "tracking_uri", "state_dir")
            and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
            and ctx.params[param.name] is not None
        }
        if given:
            from ablation.storage.databases import without_password

            given = {option: without_password(value) for option, value in given.items()}
        with commands.called(str(ctx.find_root().info_name), given):
            return super().invoke(ctx)


class _Commands(click.Group):
    """Shows a user's mistake as a sentence and ends with status 2; interruptions end with the signal's status."""

    command_class = _Command

    def main(self, *args: Any, **options: Any) -> Any:
        make_unfailing()
        return super().main(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AblationError as error:
            _say(f"Error: {error}")
            ctx.exit(USER_ERROR)
        except OSError as error:
            if error.errno is None:  # no system refused anything
                raise
            what = f"cannot {'write' if is_no_room(error) else 'use'} {error.filename}: " if error.filename else ""
            _say(f"Error: {what}{os_error_text(error)}")
            ctx.exit(USER_ERROR)


def _print(text: str, *, nl: bool = True) -> None:
    """Print what a command was asked for, in the encoding that standard output has: click by itself takes UTF-8."""
    click.echo(text, nl=nl, file=sys.stdout)


def _say(text: str) -> None:
    """Say what is no result of the command; whatever of it comes from elsewhere is text, also to a terminal."""
    click.echo(plain(text), file=sys.stderr)


class _OrBlank(click.ParamType[Any]):
    """A value that may also be blank, as MLproject passes what was not given."""

    def __init__(self, inner: click.ParamType[Any]) -> None:
        self._inner = inner
        self.name = inner.name

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return self._inner.get_metavar(param, ctx)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return None if value == "" else self._inner.convert(value, param, ctx)


class _Above(click.ParamType[float]):
    """A number above a bound and below another."""

    name = "number"

    def __init__(self, above: float, *, below: float = math.inf) -> None:
        self._range = click.FloatRange(above, below, min_open=True, max_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(self._range.convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class _Fuse(click.ParamType[int | None]):
    """How many runs a job trains together; None is as many as pay."""

    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "auto":
            return None
        if not str(value).isdecimal() or not 1 <= int(value) <= MOST_RUNS_OF_A_JOB:
            self.fail(f"{value!r} is neither auto nor a number from 1 to {MOST_RUNS_OF_A_JOB}.", param, ctx)
        return int(value)


class _Folder(click.ParamType[Path]):
    """A folder's path; an empty one would be the working directory."""

    name = "directory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if value == "":
            self.fail("it is empty; leave the option out for the default, or name a folder.", param, ctx)
        return Path(value)


def _checked_storage(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    from ablation.storage.databases import check_database

    return _checked_address(ctx, param, value, check_database)


def _checked_store(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    from ablation.tracking import check_store

    return _checked_address(ctx, param, value, check_store)


def _checked_address(ctx: click.Context, param: click.Parameter, value: str, check: Callable[[str], object]) -> str:
    """Return an address that can be one; what is wrong is told with the option or the variable that it came from."""
    is_of_environment = ctx.get_parameter_source(str(param.name)) is ParameterSource.ENVIRONMENT
    try:
        check(value)
    except AddressInvalid as error:
        raise AddressInvalid(error.reason, at=str(param.envvar) if is_of_environment else param.opts[0]) from None
    return value


def _study_options(command: F) -> F:
    """Add what changes a study file from the command line."""
    options = [
        click.option("--set", "changes", multiple=True, metavar="PATH=VALUE", help="Change any key of the file."),
        click.option("--name", type=_OrBlank(click.STRING), help="Give the study another name."),
        click.option("--seeds", type=_OrBlank(click.IntRange(1)), help="Runs per variant."),
        click.option("--depth", type=_OrBlank(click.STRING), metavar="LEVELS", help="Levels of model.depth: 3,4."),
        click.option("--normalization", type=_OrBlank(click.STRING), metavar="LEVELS", help="Its levels: none,batch."),
        click.option("--epochs", type=_OrBlank(click.IntRange(1)), help="Epochs of each run."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _state_option(command: F) -> F:
    return click.option(
        "--state-dir",
        type=_Folder(),
        envvar="ABLATION_STATE_DIR",
        default=Path(".ablation"),
        show_default=True,
        help="Where optuna.db, run folders and data caches are kept.",
    )(command)


def _storage_option(command: F) -> F:
    return click.option(
        "--storage",
        type=_OrBlank(click.STRING),
        callback=_checked_storage,
        help="Optuna's storage [default: optuna.db in the state folder].",
    )(command)


def _tracking_option(command: F) -> F:
    return click.option(
        "--tracking-uri",
        type=_OrBlank(click.STRING),
        envvar="MLFLOW_TRACKING_URI",
        callback=_checked_store,
        help="MLflow's store [default: sqlite:///mlflow.db].",
    )(command)


def _json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")(command)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ablation")
def main() -> None:
    """Which parts of a neural network matter, by how much, how surely, at what cost?"""


@main.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_study_options
@click.option("--device", type=_OrBlank(click.STRING), help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option(
    "--executor", type=_OrBlank(click.Choice(["auto", "inline", "processes"])), help="Where runs are trained."
)
@click.option("--workers", type=_OrBlank(click.IntRange(1, 1024)), help="Jobs at a time.")
@click.option(
    "--fuse",
    type=_OrBlank(_Fuse()),
    help="Runs that a job trains together: auto (on a GPU, where it is faster), or a number; 1 is none.",
)
@click.option(
    "--cudnn-benchmark",
    type=_OrBlank(click.Choice(["off", "on"])),
    help="Whether cuDNN chooses its algorithms on a GPU by timing them in a graph's first steps: the next time it may "
    "choose others, so that the same run differs in rounding.  [default: off]",
)
@click.option("--retry-failed", is_flag=True, help="Train the runs again that have failed.")
@click.option("--fresh", "is_fresh", is_flag=True, help="Delete what is recorded of the study, and train it all anew.")
@click.option(
    "--reuse", "is_reused", is_flag=True, help="Take what was trained before the study was deleted in MLflow."
)
@_storage_option
@_tracking_option
@_state_option
@_json_option
def study(
    file: Path,
    device: str | None,
    executor: str | None,
    workers: int | None,
    fuse: int | None,
    cudnn_benchmark: str | None,
    retry_failed: bool,
    is_fresh: bool,
    is_reused: bool,
    storage: str | None,
    tracking_uri: str | None,
    state_dir: Path,
    as_json: bool,
    **changes: Any,
) -> None:
    """Run a study: plan, train, report. The same command again goes on where it ended."""
    if is_fresh and is_reused:
        _refuse("--fresh trains all anew, and --reuse takes what was trained before: give one of them")
    with _interruptible():
        ended = _run_study(
            _load(file, **changes),
            device=device or "auto",
            executor=executor or "auto",
            workers=workers,
            fuse=fuse,
            cudnn_benchmark=cudnn_benchmark == "on",
            retry_failed=retry_failed,
            is_fresh=is_fresh,
            is_reused=is_reused,
            storage=storage,
            tracking_uri=tracking_uri,
            state_dir=state_dir,
            as_json=as_json,
        )
    if not ended:
        sys.exit(SOME_RUNS_FAILED)


@main.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_study_options
@click.option("--device", type=_OrBlank(click.STRING), help="auto, cpu, cuda or cuda:N.  [default: auto]")
@_state_option
@_json_option
def plan(file: Path, device: str | None, state_dir: Path, as_json: bool, **changes: Any) -> None:
    """Show a study before it costs anything: variants, parameters, FLOPs, time."""
    checked = _load(file, **changes)
    from ablation.cli.tables import preview_json, preview_text
    from ablation.preview import preview_study
    from ablation.worker import resolve_devices

    preview = preview_study(checked, state=_state(state_dir), device=resolve_devices(device or "auto")[0])
    _print(preview_json(preview) if as_json else preview_text(preview))


@main.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_study_options
@click.option("--removable", is_flag=True, help="Only those that can be removed.")
@_state_option
@_json_option
def components(file: Path, removable: bool, state_dir: Path, as_json: bool, **changes: Any) -> None:
    """List the modules of a study's model: type, parameters, FLOPs, and whether each can be removed."""
    checked = _load(file, **changes)
    from ablation.cli.tables import components_json, components_text
    from ablation.preview import study_components

    modules = study_components(checked, state=_state(state_dir))
    found = [one for one in modules if one.is_removable or not removable]
    _print(components_json(found) if as_json else components_text(found))


@main.command()
@click.option("--depth", default="3,4", show_default=True, metavar="LEVELS", help="The first is the baseline's.")
@click.option("--normalization", default="none,batch", show_default=True, metavar="LEVELS", help="Likewise.")
@click.option("--seeds", type=click.IntRange(1, 10_000), default=5, show_default=True, help="Runs per variant.")
@click.option("--epochs", type=click.IntRange(1), default=20, show_default=True, help="Epochs of each run.")
@click.option("--name", default="my-study", show_default=True, help="The study's name.")
@click.option(
    "--data", type=click.Choice(["digits", "cifar10", "images"]), default="digits", show_default=True, help="Data set."
)
@click.option("--root", help="Where the data is: needed for images.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write; else it is printed.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def define(
    depth: str,
    normalization: str,
    seeds: int,
    epochs: int,
    name: str,
    data: str,
    root: str | None,
    output: Path | None,
    force: bool,
) -> None:
    """Write a commented study file over depth and normalization."""
    from ablation.study import parse_study
    from ablation.study.define import study_text

    factors = {
        "model.depth": _levels("--depth", depth),
        "model.normalization": _levels("--normalization", normalization),
    }
    path = os.fsencode(output).decode(errors="backslashreplace") if output is not None else "FILE"
    root = _seen_from(output, root) if output is not None and root else root
    text = study_text(path=path, name=name, data=data, root=root, factors=factors, seeds=seeds, epochs=epochs)
    parse_study(text.encode(), source="the study so defined")
    if output is None:
        _print(text, nl=False)
        return
    try:
        with output.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        _refuse(f"{output} is there already; --force writes over it")
    except OSError as error:
        _refuse(f"cannot write {output}: {error.strerror}")
    _print(f"Wrote {output}. Next: ablation plan {output}")


@main.command()
@click.argument("name", metavar="STUDY")
@click.option(
    "--format",
    "form",
    type=click.Choice(["terminal", "markdown", "html", "json", "latex"]),
    default="terminal",
    show_default=True,
    help="What is printed.",
)
@click.option("--output", type=_OrBlank(click.Path(file_okay=False, path_type=Path)), help="Write the report here too.")
@click.option("--metric", type=_OrBlank(click.STRING), help="Judge by another metric: a deviation.")
@click.option("--meaningful", type=_OrBlank(_Above(0)), help="Another half-width of the ROPE: a deviation.")
@click.option("--alpha", type=_OrBlank(_Above(0, below=1)), help="Another error rate: a deviation.")
@_tracking_option
@_json_option
def summarize(
    name: str,
    form: str,
    output: Path | None,
    metric: str | None,
    meaningful: float | None,
    alpha: float | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Make a study's report again, from MLflow alone."""
    from ablation.analysis import RuleChange
    from ablation.pipeline import summarize_study

    change = RuleChange(metric=metric, meaningful=meaningful, alpha=alpha)
    _, analysis = summarize_study(name, tracker=_tracker(tracking_uri), change=change)
    from ablation.report import report_text, write_report

    if output is not None:
        _writing(output, lambda: write_report(analysis, output))
    if as_json or form != "terminal":
        _print(report_text(analysis, "json" if as_json else cast("ReportFormat", form)), nl=False)
        return
    from ablation.cli.summary import analysis_text

    _print(f"{analysis_text(analysis)}\n")
    _print(f"Report: {output / 'report.md'}" if output else "The whole report, with figures: --output DIR")


@main.command()
@click.argument("name", metavar="STUDY")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@_tracking_option
@_json_option
def compare(name: str, first: str, second: str, tracking_uri: str | None, as_json: bool) -> None:
    """Compare two variants of a study on every metric: B minus A, paired by seed."""
    from ablation.cli.summary import comparison_json, comparison_text
    from ablation.pipeline import compare_study

    comparison = compare_study(name, first, second, tracker=_tracker(tracking_uri))
    _print(comparison_json(comparison) if as_json else comparison_text(comparison))


@main.command()
@click.argument("name", metavar="STUDY")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    default=Path("-"),
    help="File to write; else it is printed.",
)
@click.option("--epochs", "by_epoch", is_flag=True, help="A row per epoch instead of a row per run.")
@_tracking_option
def export(name: str, output: Path, by_epoch: bool, tracking_uri: str | None) -> None:
    """Write a study's runs as CSV, to go on in pandas: factors, seed, outcome, metrics, MLflow run IDs."""
    from ablation.pipeline import export_study

    table = export_study(name, tracker=_tracker(tracking_uri), by_epoch=by_epoch)
    text = table.to_csv(index=False, lineterminator="\n")
    if output == Path("-"):
        _print(plain(text) if sys.stdout.isatty() else text, nl=False)
        return
    _writing(output, lambda: output.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n"))
    _print(f"Wrote {len(table)} rows to {output}.")


@main.command()
@click.argument("name", metavar="[STUDY]", required=False)
@_tracking_option
@_state_option
@_json_option
def status(name: str | None, tracking_uri: str | None, state_dir: Path, as_json: bool) -> None:
    """Say how far a study is, what failed and why, or list the studies."""
    from ablation.cli.tables import StudyStanding, status_json, status_text
    from ablation.coordinator.lease import has_gone
    from ablation.pipeline import find_study

    tracker = _tracker(tracking_uri)
    records, is_unread = [], False
    for each in [name] if name else tracker.study_names():
        try:
            records.append(find_study(each, tracker=tracker))
        except AblationError as error:
            if name:
                raise
            is_unread = True
            _say(f"Error: {error}")
    state = _state(state_dir)
    found = [
        StudyStanding(
            record=record,
            runs=tracker.recorded_runs(record, with_details=False),
            unrecorded=state.unrecorded(record.plan.name),
            is_interrupted=record.status == "RUNNING" and (holder is None or has_gone(holder)),
            gone=holder,
        )
        for record, holder in ((record, tracker.holder(record.study_run_id)) for record in records)
    ]
    if found or as_json or not is_unread:
        _print(status_json(found) if as_json else status_text(found))
    if is_unread:
        sys.exit(USER_ERROR)


@main.command()
@click.argument("name", metavar="[STUDY]", required=False)
@_storage_option
@_tracking_option
@_state_option
@_json_option
def sync(name: str | None, storage: str | None, tracking_uri: str | None, state_dir: Path, as_json: bool) -> None:
    """Record in MLflow what ended while it could not be reached, of one study or all of this state folder."""
    from ablation.cli.tables import sync_json, sync_text
    from ablation.pipeline import sync_study
    from ablation.scheduling import default_storage

    state, tracker = _state(state_dir), _tracker(tracking_uri, is_launched=True)
    found, is_refused = [], False
    with _interruptible():
        for each in [name] if name else state.begun_studies():
            try:
                url = storage or default_storage(state.folder)
                found.append(sync_study(each, tracker=tracker, storage_url=url, state=state, say=_say))
            except AblationError as error:
                is_refused = True
                _say(f"Error: {error}")
    if found or as_json or not is_refused:
        _print(sync_json(found) if as_json else sync_text(found))
    if is_refused:
        sys.exit(USER_ERROR)


@main.command()
@click.argument("name", metavar="STUDY")
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
@_storage_option
@_tracking_option
@_state_option
def delete(name: str, is_sure: bool, storage: str | None, tracking_uri: str | None, state_dir: Path) -> None:
    """Delete a study: its runs go to MLflow's trash, its schedule and its folders for good."""
    from ablation.cli.tables import deletion_text
    from ablation.coordinator.deletion import delete_study, holdings_of
    from ablation.scheduling import default_storage

    state, tracker = _state(state_dir), _tracker(tracking_uri, is_launched=True)
    found = holdings_of(name, tracker=tracker, state=state)
    if not is_sure and not _is_confirmed(f"{deletion_text(found, state.folder)} Delete it?"):
        _refuse(f"nothing is deleted: `{commands.shown('delete', name, '--yes')}` does not ask")
    url = storage or default_storage(state.folder)
    deleted = delete_study(name, tracker=tracker, storage_url=url, state=state, say=_say)
    _print(
        f"Deleted: {deleted.name}. MLflow keeps its {deleted.runs} runs in the trash until `mlflow gc` is run."
        if deleted.runs
        else f"Deleted: {deleted.name}."
    )


def _is_confirmed(question: str) -> bool:
    try:
        return click.confirm(plain(question), err=True)
    except click.Abort:  # nobody is there to answer
        _say("")
        return False


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; elsewhere needs --basic-auth.")
@click.option("--port", type=click.IntRange(1, 65_535), default=5000, show_default=True, help="Port to listen on.")
@click.option("--basic-auth", "has_basic_auth", is_flag=True, help="Ask for a name and password, as MLflow can.")
@click.option("--allowed-hosts", metavar="NAMES", help="Names it may be reached by, with commas: mlflow.example.org.")
@_tracking_option
def ui(host: str, port: int, has_basic_auth: bool, allowed_hosts: str | None, tracking_uri: str | None) -> None:
    """Show what is recorded in MLflow's own UI, to this machine alone."""
    from ablation.cli.serving import Place, check_place, check_store, serve, study_links

    tracker = _tracker(tracking_uri)
    uri = str(getattr(tracker, "tracking_uri", ""))
    if uri.startswith(("http://", "https://")):
        _print("\n".join([f"MLflow is served already: {uri}", *study_links(tracker, uri)]))
        return
    place = Place(host=host, port=port, has_basic_auth=has_basic_auth, allowed_hosts=allowed_hosts)
    check_place(place)
    check_store(uri)
    links = "\n".join([f"MLflow is at {place.url}; Ctrl-C ends it.", *study_links(tracker, place.url)])
    sys.exit(serve(uri, place, when_ready=lambda: _print(links)))


def _run_study(
    checked: Study,
    *,
    device: str,
    executor: str,
    workers: int | None,
    fuse: int | None,
    cudnn_benchmark: bool,
    retry_failed: bool,
    is_fresh: bool,
    is_reused: bool,
    storage: str | None,
    tracking_uri: str | None,
    state_dir: Path,
    as_json: bool,
) -> bool:
    """Run a study, show how it goes and what came of it; say whether every planned run has a result."""
    from ablation.cli.progress import follow, outcome_json, outcome_text
    from ablation.executors import make_executor
    from ablation.pipeline import run_study
    from ablation.scheduling import default_storage
    from ablation.worker import resolve_devices, why_no_gpu

    devices = resolve_devices(device)
    if device == "auto" and (reason := why_no_gpu()) is not None:
        _say(f"Training on the CPU, as no GPU can be used: {reason}")
    if cudnn_benchmark and devices == ("cpu",):
        _say("--cudnn-benchmark on changes nothing on a CPU")
    state = _state(state_dir)
    tracker = _tracker(tracking_uri, is_launched=True)
    with (
        make_executor(executor, devices=devices, workers=workers, threads=checked.spec.training.threads) as pool,
        contextlib.closing(
            run_study(
                checked,
                tracker=tracker,
                executor=pool,
                storage_url=storage or default_storage(state.folder),
                state=state,
                fuse=fuse,
                cudnn_benchmark=cudnn_benchmark,
                retry_failed=retry_failed,
                is_fresh=is_fresh,
                is_reused=is_reused,
            )
        ) as steps,
    ):
        outcome = follow(steps, study=checked, slots=len(pool.slots), quiet=as_json)
    _print(outcome_json(outcome, tracker) if as_json else outcome_text(outcome, tracker))
    return len(outcome.record.plan.runs) <= sum(count for kind, count in outcome.ended.items() if kind != "failed")


def _load(
    file: Path,
    *,
    changes: tuple[str, ...],
    name: str | None,
    seeds: int | None,
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
        path: _levels(f"--{path.rpartition('.')[2]}", text)
        for path, text in (("model.depth", depth), ("model.normalization", normalization))
        if text is not None
    }
    return load_study(file, overrides=overrides, levels=levels, name=name)


def _seen_from(file: Path, root: str) -> str:
    """Return a path as it was typed as a file names it: relative paths in a study file start at its folder."""
    stays = root.startswith("~") or Path(root).is_absolute() or file.parent == Path()
    return root if stays else os.path.relpath(root, file.parent)


def _levels(option: str, text: str) -> list[Any]:
    from ablation.study import read_value

    try:
        levels = read_value(f"[{text}]")
    except ValueError as error:
        _refuse(f"{error} @ {option} {text}")
    if not levels:
        _refuse(f"needs at least one level @ {option}")
    return list(levels)


def _state(folder: Path) -> State:
    from ablation.storage.state import State

    return State(folder=folder.resolve())


def _tracker(tracking_uri: str | None, *, is_launched: bool = False) -> Tracker:
    """Return MLflow's tracker; a command that `mlflow run` launched works in the run and experiment it was given.

    Code of the user's does not see that run: what records in MLflow by itself would write into it. A command that only
    reads does not wait long for a server: there is nothing to lose.
    """
    from ablation.tracking import open_mlflow

    return open_mlflow(
        tracking_uri,
        launch_run_id=os.environ.pop("MLFLOW_RUN_ID", None) or None if is_launched else None,
        experiment_id=os.environ.get("MLFLOW_EXPERIMENT_ID") or None if is_launched else None,
        experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME") or None if is_launched else None,
        is_impatient=not is_launched,
    )


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Turn a signal that asks to end into an exception, say how to go on, and end with the signal's status."""
    command = _this_command()
    from ablation.stopping import end_at_once, stopping

    with stopping.listening(on_asked=_say_ending):
        try:
            yield
        except KeyboardInterrupt:
            with contextlib.suppress(OSError):
                _say(
                    "Interrupted. What had ended is kept, and what was under way as far as its last checkpoint. "
                    f"Go on with the same command: {command}"
                )
            end_at_once(stopping.signal)  # all is in order; the interpreter would take two more seconds to tidy up


def _this_command() -> str:
    """Return the command line for a shell that goes on; passwords in addresses are not shown."""
    from ablation.storage.databases import without_password

    given = [word for word in sys.argv[1:] if word != "--fresh"]  # again would be from the beginning again
    words = [*str(click.get_current_context().find_root().info_name).split(), *given]
    return shlex.join(map(without_password, words))


def _say_ending() -> None:
    with contextlib.suppress(OSError):  # whoever read it is gone
        os.write(2, b"\nEnding in good order, within 10 seconds; once more ends at once.\n")  # safe in a handler


def _writing(path: Path, write: Callable[[], object]) -> None:
    try:
        write()
    except OSError as error:
        _refuse(f"cannot write {path}: {error.strerror} @ --output")


def _refuse(message: str) -> NoReturn:
    raise AblationError(message)
