"""Lists the components of any model, and removes or replaces them by name without touching its code."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from torch import Tensor, nn

from ablation.errors import AblationError, ComponentInvalid
from ablation.models.component_names import Names, listed, matching, names_of, outermost, short, shortened
from ablation.models.probe import (
    Probe,
    build_and_probe,
    count_parameters,
    failure_text,
    probe_model,
    shape_text,
    without_batch,
)
from ablation.models.removed import Removed, first_tensor
from ablation.records import Component, DataShape
from ablation.stopping import stopping

REMOVE, REPLACE = "model.remove", "model.replace"
NEVER_CALLED = "it is never called, if anything its weights are used"
IDLE = "it does nothing already"
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
ADAPTIVE_POOLS = (
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)

Replacement = Callable[[nn.Module], nn.Module]


def list_components(build: Callable[[], nn.Module], shape: DataShape) -> tuple[Component, ...]:
    """Return every module of a model but the model itself, in order; one with several names by its first.

    Raises:
        ModelInvalid: the model cannot be run on an example of the shape.
    """
    return tuple(_components(*build_and_probe(build, shape)).values())


def edit_model(
    model: nn.Module, example: Tensor, *, remove: Sequence[str], replace: Mapping[str, Replacement]
) -> nn.Module:
    """Remove components, then replace others, in place; return the model.

    Patterns are dotted names as `fnmatch.fnmatchcase` takes them: `*` matches dots too. Of nested matches the outermost
    counts; a module with several names goes under all of them. A removed component answers with its input. What
    remains keeps its weights to the bit. After an error the model is half edited: build another.

    `example` is a batch of one; a replacement is given the old module and returns the new one.

    Raises:
        ComponentInvalid: a pattern matches nothing, or what it matches cannot be removed or replaced.
    """
    if remove:
        _remove(model, example, remove)
    if replace:
        _replace(model, example, replace)
    if remove or replace:
        _leave_fused_encoders(model)
    return model


def _remove(model: nn.Module, example: Tensor, patterns: Iterable[str]) -> None:
    before, names = _probed(model, example), names_of(model)
    chosen, refusals = _removed_names(model, patterns, names, before)
    trained = count_parameters(model)
    stand_ins = []
    for name in chosen:
        stand_in = Removed(model.get_submodule(name), before.calls[name][0].outputs)
        stand_ins.append(stand_in)
        _put(model, names[name], stand_in)
    if trained and not count_parameters(model):
        raise ComponentInvalid(f"{listed(patterns)} is the whole model: nothing is left to train", path=REMOVE)
    after = _probed_for_writes(model, example, stand_ins)
    problem = _problem(before, after, [names[name] for name in chosen])
    if refusals and (problem or not _rest_is_alike(before, after, {other for name in chosen for other in names[name]})):
        raise ComponentInvalid(refusals[0], path=REMOVE)
    if problem:
        raise ComponentInvalid(f"{listed(chosen)} cannot be removed: {problem}", path=REMOVE)


def _removed_names(
    model: nn.Module, patterns: Iterable[str], names: Names, probe: Probe
) -> tuple[list[str], list[str]]:
    """Return the first names of what to remove, and why some of it, by itself, could not be."""
    components = _components(model, probe)
    matched: dict[str, str] = {}
    for pattern in patterns:
        for name in matching(pattern, names, path=REMOVE):
            matched.setdefault(name, pattern)
    found = outermost(matched, names, probe.calls)
    chosen = [name for name in found if components[name].reason != IDLE or name == matched[name]] or found
    unfit = [name for name in chosen if not components[name].is_removable]
    refusals = [_refusal(components, name, matched[name]) for name in unfit]
    # Several that change the shape may undo each other's change; one alone cannot.
    can_be_tried = len(unfit) > 1 and all(name in probe.calls for name in unfit)
    if unfit and not can_be_tried:
        raise ComponentInvalid(refusals[0], path=REMOVE)
    return chosen, refusals


def _replace(model: nn.Module, example: Tensor, replacements: Mapping[str, Replacement]) -> None:
    before, names = _probed(model, example), names_of(model)
    chosen = _replaced_names(model, replacements, names, before)
    changed: dict[str, str] = {}
    stand_ins = []
    for name, pattern in chosen.items():
        old = model.get_submodule(name)
        described = (type(old), repr(old))
        new = _new_module(replacements[pattern], old, name)
        if (type(new), repr(new)) == described:
            continue
        changed[name] = pattern
        if isinstance(new, nn.Identity) and name in before.calls:
            new = Removed(old, before.calls[name][0].outputs)
            stand_ins.append(new)
        _put(model, names[name], new.train(old.training))
    for name, pattern in chosen.items():
        if pattern not in changed.values():
            raise ComponentInvalid(
                f"{name!r} is replaced by what it is, {short(repr(model.get_submodule(name)))}, so nothing changes; "
                "if the new one differs, let its extra_repr say how",
                path=REPLACE,
            )
    after = _probed_for_writes(model, example, stand_ins)
    problem = _changed_shape(before, after, changed, names) or _problem(
        before, after, [names[name] for name in changed if name in before.calls]
    )
    if problem:
        raise ComponentInvalid(f"{listed(changed)} cannot be replaced so: {problem}", path=REPLACE)


def _replaced_names(
    model: nn.Module, replacements: Mapping[str, Replacement], names: Names, probe: Probe
) -> dict[str, str]:
    """Return {first name of a module to replace: its pattern}."""
    matched: dict[str, str] = {}
    for pattern in replacements:
        for name in matching(pattern, names, path=REPLACE):
            if isinstance(model.get_submodule(name), Removed):
                continue
            if name in matched:
                message = f"{name!r} is matched by both {matched[name]!r} and {pattern!r}; let one of them replace it"
                raise ComponentInvalid(message, path=REPLACE)
            matched[name] = pattern
    chosen = {name: matched[name] for name in outermost(matched, names, probe.calls)}
    for pattern in replacements:
        if pattern not in chosen.values():
            message = f"what {pattern!r} matches is removed, or is inside another replaced component: nothing is left"
            raise ComponentInvalid(f"{message} of it to replace", path=REPLACE)
    for name in chosen:
        if name not in probe.calls and not any(called.startswith(f"{name}.") for called in probe.calls):
            message = f"{name!r} cannot be replaced: {NEVER_CALLED}; replace the module that it is a part of"
            raise ComponentInvalid(message, path=REPLACE)
    return chosen


def _new_module(replacement: Replacement, old: nn.Module, name: str) -> nn.Module:
    try:
        new: object = replacement(old)
    except AblationError:
        raise
    except BaseException as error:
        if stopping.is_interruption(error):
            raise
        message = f"the replacement of {name!r} could not be built: {type(error).__name__}: {error}"
        raise ComponentInvalid(message, path=REPLACE) from error
    if not isinstance(new, nn.Module):
        message = f"the replacement of {name!r} is a {type(new).__name__}; return a torch.nn.Module"
        raise ComponentInvalid(message, path=REPLACE)
    return new


def _components(model: nn.Module, probe: Probe) -> dict[str, Component]:
    return {name: _component(name, module, probe) for name, module in model.named_modules() if name}


def _component(name: str, module: nn.Module, probe: Probe) -> Component:
    calls = probe.calls.get(name, ())
    reason = _why_not_removable(name, module, probe)
    return Component(
        name=name,
        type=type(module).__name__,
        parameters=count_parameters(module),
        flops=sum(call.flops for call in calls),
        input_shape=without_batch(calls[0].input_shape) if calls else None,
        output_shape=without_batch(calls[0].output_shape) if calls else None,
        is_removable=not reason,
        reason=reason,
    )


def _why_not_removable(name: str, module: nn.Module, probe: Probe) -> str:
    calls = probe.calls.get(name, ())
    if not calls:
        has_called = any(called.startswith(f"{name}.") for called in probe.calls)
        return "it is never called, only modules inside it are" if has_called else NEVER_CALLED
    reasons = [call.reason for call in calls if call.reason]
    if reasons:
        return reasons[0]
    if isinstance(module, (nn.Identity, Removed, *ADAPTIVE_POOLS)) or (isinstance(module, DROPOUTS) and module.p == 0):
        return IDLE
    return "" if all(call.outputs == calls[0].outputs for call in calls) else "its calls differ in what they return"


def _probed(model: nn.Module, example: Tensor) -> Probe:
    """Probe a model nobody has edited; what it fails with is its own error."""
    probe = probe_model(model, example)
    if probe.error is not None:
        raise probe.error
    return probe


def _probed_for_writes(model: nn.Module, example: Tensor, stand_ins: Iterable[Removed]) -> Probe:
    """Probe the model, and let stand-ins whose answer is written to later copy it, as others may need it unwritten."""
    seen: list[tuple[Removed, Tensor, int]] = []

    def note(stand_in: nn.Module, _inputs: object, output: object) -> None:
        answer = first_tensor(output)
        if isinstance(stand_in, Removed) and answer is not None:
            seen.append((stand_in, answer, answer._version))

    handles = [stand_in.register_forward_hook(note) for stand_in in stand_ins]
    probe = probe_model(model, example)
    for handle in handles:
        handle.remove()
    drops_in_place = any(isinstance(module, DROPOUTS) and module.inplace for module in model.modules())
    for stand_in, answer, version in seen:
        stand_in.is_copied |= drops_in_place or answer._version > version
    return probe


def _problem(before: Probe, after: Probe, edited: Iterable[Sequence[str]]) -> str:
    """Say what is wrong with the edited model, given all names of each edited module; "" where nothing is."""
    if after.error is not None:
        return f"the forward pass then fails {failure_text(after)}"
    for names in edited:
        if not any(name in after.calls for name in names):
            return f"the model calls {names[0]!r} by another way than this name"
    if before.output_shape != after.output_shape:
        shapes = [shape_text(without_batch(probe.output_shape)) for probe in (before, after)]
        return f"the model's output changes its shape, {shapes[0]} -> {shapes[1]}"
    return ""


def _changed_shape(before: Probe, after: Probe, changed: Iterable[str], names: Names) -> str:
    for name in changed:
        calls = next((after.calls[other] for other in names[name] if other in after.calls), ())
        for was, now in zip(before.calls.get(name, ()), calls, strict=False):
            if was.output_shape != now.output_shape:
                shapes = [shape_text(without_batch(call.output_shape)) for call in (was, now)]
                return f"{name!r} gave {shapes[0]} and its replacement gives {shapes[1]}"
    return ""


def _rest_is_alike(before: Probe, after: Probe, edited: Collection[str]) -> bool:
    """Whether every module but the edited ones takes and gives the same shapes as before."""

    def shapes(probe: Probe, name: str) -> list[tuple[object, object]]:
        return [(call.input_shape, call.output_shape) for call in probe.calls.get(name, ())]

    return all(shapes(before, name) == shapes(after, name) for name in after.calls if name not in edited)


def _put(model: nn.Module, names: Iterable[str], module: nn.Module) -> nn.Module:
    for name in names:
        model.set_submodule(name, module)
    return module


def _leave_fused_encoders(model: nn.Module) -> None:
    """Let torch's encoders call their parts when evaluated too, not a fused kernel that takes the parts' weights."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False


def _refusal(components: Mapping[str, Component], name: str, pattern: str) -> str:
    matched = "" if name == pattern else f", which {pattern!r} matches,"
    removable = [component.name for component in components.values() if component.is_removable]
    possible = f"removable here: {shortened(removable)}" if removable else "nothing of this model can be"
    return f"{name!r} ({components[name].type}){matched} cannot be removed: {components[name].reason}; {possible}"
