"""Calls the user's code: chooses its arguments, and turns what it raises into an error with the user's traceback."""

import contextlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation.errors import AblationError, CodeInvalid
from ablation.lookup import did_you_mean
from ablation.stopping import stopping

PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"


def bound(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    offered: Mapping[str, Any],
    section: str,
    positions: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the keyword arguments to call the user's function with.

    Args:
        arguments: the study file's, all of which the function must take.
        offered: values that it gets where its signature names them.
        section: where the study file has the arguments, `model` for example.
        positions: what it is called with by position, in words: its first arguments.

    Raises:
        CodeInvalid: it takes no argument of that name, wants one that the section does not give, or takes too few by
            position.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # it is not written in Python
        return dict(arguments)
    by_position = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if len(by_position) < len(positions) and not any(one.kind is one.VAR_POSITIONAL for one in parameters):
        takes = f"it takes {len(by_position) or 'none'} by position"
        raise CodeInvalid(f"{name} is called with {' and '.join(positions)}, and {takes}", path=section)
    parameters = [one for one in parameters if one not in by_position[: len(positions)]]
    named = [one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    unknown = [key for key in arguments if key not in named]
    if unknown and not any(one.kind is one.VAR_KEYWORD for one in parameters):
        takes = f"it takes {', '.join(named) or 'none'}{did_you_mean(unknown[0], named)}"
        raise CodeInvalid(f"{name} takes no argument {unknown[0]!r}; {takes}", path=f"{section}.{unknown[0]}")
    given = {**{key: value for key, value in offered.items() if key in named}, **arguments}
    for parameter in filter(_is_required, parameters):
        if parameter.kind is parameter.POSITIONAL_ONLY:
            message = f"{name} takes {parameter.name!r} by position, and arguments are given by name"
            raise CodeInvalid(message, path=section)
        if parameter.name not in given:
            message = f"{name} needs an argument {parameter.name!r}; add it to the section"
            raise CodeInvalid(message, path=f"{section}.{parameter.name}")
    return given


def _is_required(parameter: inspect.Parameter) -> bool:
    is_one = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return is_one and parameter.default is parameter.empty


@contextlib.contextmanager
def running(name: str, *, path: str, doing: str = "it was called") -> Iterator[None]:
    """Run the user's code: what it raises becomes CodeInvalid with its traceback, what it prints goes to stderr.

    Handlers of signals that it sets last as long as it runs.

    Raises:
        CodeInvalid: it raised anything, SystemExit too.
        KeyboardInterrupt: this process was asked to end, however the code took it.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), stopping.hearing():
            yield
    except AblationError:
        raise
    except BaseException as error:
        if stopping.is_interruption(error):
            raise KeyboardInterrupt from error
        message = f"{name} raised {type(error).__name__} when {doing}"
        raise CodeInvalid(message, path=path, traceback=user_traceback(error)) from error


def user_traceback(error: BaseException) -> str:
    """Return an error's traceback without the frames of Python's import system and of this package."""
    report = traceback.TracebackException.from_exception(error)
    seen: set[int] = set()
    waiting: list[traceback.TracebackException | None] = [report]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.stack = traceback.StackSummary.from_list([frame for frame in one.stack if is_users(frame.filename)])
            waiting += [one.__cause__, one.__context__, *(one.exceptions or ())]
    return "".join(report.format()).rstrip()


def is_users(filename: str) -> bool:
    """Whether a frame's file is neither part of Python's import system nor of this package."""
    return not filename.startswith(("<frozen ", PACKAGE)) and "importlib" not in Path(filename).parts
