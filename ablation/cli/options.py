"""The options that several commands have, and how their values are read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from ablation.errors import AddressInvalid

F = TypeVar("F", bound=Callable[..., Any])

MOST_RUNS_OF_A_JOB = 1024
SEEDS_HELP = (
    "Runs per variant, 1 to 10,000: a number, those at each planned look, such as 5,8,12,20, or in brackets these seed "
    "indices, such as [0,1,42]."
)


class OrBlank(click.ParamType[Any]):
    """A value that may also be blank, as MLproject passes what was not given."""

    def __init__(self, inner: click.ParamType[Any]) -> None:
        self._inner = inner
        self.name = inner.name

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        if isinstance(self._inner, click.IntRange):
            low, high = self._inner.min, self._inner.max
            return f"INTEGER>={low}" if high is None else f"{low}..{high}"
        return self._inner.get_metavar(param, ctx)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return None if value == "" else self._inner.convert(value, param, ctx)


class Above(click.ParamType[float]):
    """A number above a bound and below another."""

    name = "number"

    def __init__(self, above: float, *, below: float = math.inf) -> None:
        self._range = click.FloatRange(above, below, min_open=True, max_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(self._range.convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Fuse(click.ParamType[int | None]):
    """How many runs a job trains together; None is as many as pay."""

    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "auto":
            return None
        if not str(value).isdecimal() or not 1 <= int(value) <= MOST_RUNS_OF_A_JOB:
            self.fail(f"{value!r} is neither auto nor a number from 1 to {MOST_RUNS_OF_A_JOB}.", param, ctx)
        return int(value)


class ExecutorKind(click.Choice[str]):
    """Where runs are trained; an engine is named with its scheduler's file or address."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        kind, colon, _ = str(value).partition(":")
        return value if colon and f"{kind}:WHERE" in self.choices else super().convert(value, param, ctx)


class Seeds(click.ParamType[Any]):
    """Runs per variant: a number, those at each planned look, or seed indices; given as a study file has them."""

    name = "n|n,n,...|[i,i,...]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = re.fullmatch(r"(\[?) *([0-9]{1,9}(?: *, *[0-9]{1,9})*) *(\]?)", str(value).strip())
        if found is None or bool(found[1]) != bool(found[3]):
            form = "a number of seeds, such as 5, nor planned looks, such as 5,8,12,20, nor seed indices, as [0,1,42]"
            self.fail(f"{value!r} is neither {form}.", param, ctx)
        numbers = [int(part) for part in found[2].split(",")]
        if found[1]:
            return numbers
        return {"looks": numbers} if len(numbers) > 1 else numbers[0]


class Folder(click.ParamType[Path]):
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


def study_options(command: F) -> F:
    """Add what changes a study file from the command line."""
    options = [
        click.option("--set", "changes", multiple=True, metavar="PATH=VALUE", help="Change any key of the file."),
        click.option("--name", type=OrBlank(click.STRING), help="Give the study another name."),
        click.option("--seeds", type=OrBlank(Seeds()), help=SEEDS_HELP),
        click.option("--depth", type=OrBlank(click.STRING), metavar="LEVELS", help="Levels of model.depth: 3,4."),
        click.option("--normalization", type=OrBlank(click.STRING), metavar="LEVELS", help="Its levels: none,batch."),
        click.option("--epochs", type=OrBlank(click.IntRange(1)), help="Epochs of each run."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def executor_option(command: F) -> F:
    return click.option(
        "--executor",
        type=OrBlank(ExecutorKind(["auto", "inline", "processes", "dask:WHERE"])),
        help="Where runs are trained: on this machine, or by the workers of a dask scheduler, whose file or address is "
        "WHERE.  [default: auto]",
    )(command)


def insecure_option(command: F) -> F:
    return click.option(
        "--insecure-network",
        "is_open",
        is_flag=True,
        help="Use dask without TLS in a network where whoever reaches its ports can run code as you.",
    )(command)


def state_option(command: F) -> F:
    return click.option(
        "--state-dir",
        type=Folder(),
        envvar="ABLATION_STATE_DIR",
        default=Path(".ablation"),
        show_default=True,
        help="Where optuna.db, run folders and data caches are kept.",
    )(command)


def storage_option(command: F) -> F:
    return click.option(
        "--storage",
        type=OrBlank(click.STRING),
        callback=_checked_storage,
        help="Optuna's storage [default: optuna.db in the state folder].",
    )(command)


def tracking_option(command: F) -> F:
    return click.option(
        "--tracking-uri",
        type=OrBlank(click.STRING),
        envvar="MLFLOW_TRACKING_URI",
        callback=_checked_store,
        help="MLflow's store [default: sqlite:///mlflow.db].",
    )(command)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")(command)
