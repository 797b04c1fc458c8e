"""Says how a training function is called: what it is offered by name, and which keys of `training` it takes.

`train(learning_rate, model, report)` gets what its parameters are called. A function whose parameters without a default
are not all known that way is called with (settings, seed, report) by position.
"""

import ast
import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ablation.code.imports import function_in, keys_read
from ablation.errors import CodeInvalid
from ablation.lookup import did_you_mean

SECTION = "training"
OFFERED: Mapping[str, str] = {
    "settings": "the sections data, model and training",
    "seed": "a number for random streams, the same in every variant of a seed",
    "report": "takes metrics of an epoch, keeps checkpoints",
    "data": "the study's data set, split for the seed",
    "model": "the study's model, built",
    "device": "the torch.device of the run",
    "max_batches": "1 where it is tried before the study starts, else None",
}
"""What a training function is given by these names."""
BY_POSITION = ("settings", "seed", "report")
NOT_SETTINGS = ("name", "threads")
"""Keys of the section that are ours; a function may take `threads`."""
_Parameter = inspect.Parameter


class Unread:
    """Stands for a default that is not a plain value in the source."""


UNREAD = Unread()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCall:
    """How a training function is called.

    With `is_by_position`, its first three arguments are settings, seed and report. `offered` are the names in OFFERED
    that it is given by name, `needed` those of them that it has no default for, and `keys` the keys of the `training`
    section that it is given by name.
    """

    is_by_position: bool
    offered: tuple[str, ...]
    needed: tuple[str, ...]
    keys: tuple[str, ...]

    def takes(self, offered: str) -> bool:
        """Whether it is given what is offered under a name."""
        return offered in self.offered or (self.is_by_position and offered in BY_POSITION)

    def arguments(
        self, offered: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments by position and by name; `settings` are the values of the `training` section.

        What is not among the offered values keeps the function's default.
        """
        by_position = tuple(offered[name] for name in BY_POSITION) if self.is_by_position else ()
        by_name = {name: offered[name] for name in self.offered if name in offered}
        return by_position, {**by_name, **{key: settings[key] for key in self.keys}}


def training_signature(function: Any) -> inspect.Signature | None:
    """Return the signature of a training function, None where it has none, as one that is not written in Python."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def signature_in_source(content: bytes, function: str) -> inspect.Signature | None:
    """Return the signature of a function as its source has it; nothing is executed.

    A default that is no plain value is UNREAD. None where the source does not tell: the name stands for something else
    than one undecorated function of the module, or is not there.
    """
    found = function_in(content, function)
    if found is None:
        return None
    arguments = found.args
    plain = [*arguments.posonlyargs, *arguments.args]
    lacking = [None] * (len(plain) - len(arguments.defaults))
    kinds: list[Any] = [_Parameter.POSITIONAL_ONLY] * len(arguments.posonlyargs)
    kinds += [_Parameter.POSITIONAL_OR_KEYWORD] * len(arguments.args)
    parameters = [
        _parameter(each, kind, default)
        for each, kind, default in zip(plain, kinds, [*lacking, *arguments.defaults], strict=True)
    ]
    if arguments.vararg is not None:
        parameters.append(_parameter(arguments.vararg, _Parameter.VAR_POSITIONAL, None))
    for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        parameters.append(_parameter(each, _Parameter.KEYWORD_ONLY, default))
    if arguments.kwarg is not None:
        parameters.append(_parameter(arguments.kwarg, _Parameter.VAR_KEYWORD, None))
    return inspect.Signature(parameters)


def own_settings(signature: inspect.Signature) -> dict[str, Any]:
    """Return the parameters that are keys of the `training` section, with their defaults.

    A default is `inspect.Parameter.empty` where there is none, UNREAD where the source does not tell it.
    """
    return {
        each.name: each.default
        for each in signature.parameters.values()
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) and each.name not in (*OFFERED, *NOT_SETTINGS)
    }


def training_call(signature: inspect.Signature | None, keys: Collection[str], *, name: str) -> TrainingCall:
    """Return how a training function is called; `keys` are those of the `training` section, `name` its name there.

    Raises:
        CodeInvalid: it cannot be called with what there is, or a key of the section would be read by nothing.
    """
    for path, message in call_problems(signature, keys, name=name):
        _refuse(message, path)
    if signature is None:
        return TrainingCall(is_by_position=True, offered=(), needed=(), keys=())
    parameters = list(signature.parameters.values())
    given = [key for key in keys if key != "name"]
    if _is_by_position(parameters, given):
        rest = _named(parameters[len(BY_POSITION) :])
        offered = tuple(each for each in OFFERED if each in rest and each not in BY_POSITION)
        return TrainingCall(is_by_position=True, offered=offered, needed=(), keys=())
    named = _named(parameters)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
    by_key = tuple(key for key in given if key in named or (takes_any and key not in NOT_SETTINGS))
    needed = [each.name for each in parameters if _is_required(each)]
    offered = tuple(each for each in OFFERED if each in named and each not in by_key)
    return TrainingCall(
        is_by_position=False,
        offered=offered,
        needed=tuple(each for each in offered if each in needed),
        keys=by_key,
    )


def call_problems(
    signature: inspect.Signature | None, keys: Collection[str], *, name: str
) -> Iterator[tuple[str, str]]:
    """Yield what stands in the way of calling a training function: the key of the study file, and what is wrong."""
    if signature is None:
        return
    parameters = list(signature.parameters.values())
    given = [key for key in keys if key != "name"]
    if _is_by_position(parameters, given):
        return
    named = _named(parameters)
    for each in parameters:
        if _is_required(each) and each.kind is each.POSITIONAL_ONLY:
            message = f"{name} takes {each.name!r} by position; only (settings, seed, report) are given so"
            yield f"{SECTION}.name", message
        elif _is_required(each) and each.name not in (*OFFERED, *given):
            near = did_you_mean(each.name, [one for one in (*OFFERED, *given) if one not in named])
            way = f"add `{each.name}: …` to training, or give it a default{near}"
            yield (
                f"{SECTION}.{each.name}",
                f"{name} needs `{each.name}`, and nothing gives it: {way}; {_offered_text()}",
            )
    for key in BY_POSITION:
        if key in given and key in named:
            message = f"{name} is given `{key}` by that name ({OFFERED[key]}); call your own setting something else"
            yield f"{SECTION}.{key}", message
    if "settings" in named or any(each.kind is each.VAR_KEYWORD for each in parameters):
        return
    own = [each for each in named if each not in OFFERED]
    for key in given:
        if key not in named and key not in NOT_SETTINGS:
            takes = f"it takes {', '.join(own) or 'no setting'}{did_you_mean(key, own)}"
            yield f"{SECTION}.{key}", f"nothing reads this key: {name} has no parameter {key!r}; {takes}"


def sections_read(content: bytes, function: str, keys: Collection[str]) -> frozenset[str] | None:
    """Return the sections that a training function reads of its settings, and what else it is offered by name.

    None where its source does not tell: it hands the settings on, or is no function that could be called so.
    """
    found, signature = function_in(content, function), signature_in_source(content, function)
    if found is None or signature is None:
        return None
    try:
        call = training_call(signature, keys, name=function)
    except CodeInvalid:
        return None
    offered = frozenset(call.offered) - {*BY_POSITION}
    if not call.is_by_position:
        read = keys_read(found, "settings") if "settings" in call.offered else frozenset[str]()
    else:
        first = [*found.args.posonlyargs, *found.args.args][:1]
        read = keys_read(found, first[0].arg) if first else None
    return read | offered if read is not None else None


def _refuse(message: str, path: str) -> NoReturn:
    raise CodeInvalid(message, path=path)


def _is_by_position(parameters: Sequence[_Parameter], keys: Sequence[str]) -> bool:
    """Whether a function is called with (settings, seed, report) by position.

    Some of its parameters are not known by their names then, and those that are stand where these three do.
    """
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        return True
    known = (*OFFERED, *keys)
    required = [each for each in parameters if _is_required(each)]
    if all(each.name in known and each.kind is not each.POSITIONAL_ONLY for each in required):
        return False
    first, rest = parameters[: len(BY_POSITION)], parameters[len(BY_POSITION) :]
    are_three = [each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in first] == [True] * 3
    are_in_place = all(
        each.name == place or each.name not in known for each, place in zip(first, BY_POSITION, strict=False)
    )
    return are_three and are_in_place and all(each.name in OFFERED for each in rest if _is_required(each))


def _named(parameters: Sequence[_Parameter]) -> list[str]:
    return [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]


def _is_required(each: _Parameter) -> bool:
    return each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD) and each.default is each.empty


def _offered_text() -> str:
    return f"given by name are {', '.join(OFFERED)} and the keys of training"


def _parameter(each: ast.arg, kind: Any, default: ast.expr | None) -> _Parameter:
    return _Parameter(each.arg, kind, default=_value(default) if default is not None else _Parameter.empty)


def _value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return UNREAD
