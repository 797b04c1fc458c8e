"""Runs a model once on an example and records every call of its modules; the model is left as it was."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode

from ablation.errors import AblationError, ModelInvalid
from ablation.models.removed import Outputs, first_output, first_tensor, outputs_of
from ablation.records import DataShape
from ablation.stopping import stopping


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a module: shapes (B, …) of the first tensors it took and gave, None where there was none.

    `reason` says why the call cannot be left out, empty where its input could stand for its output; `outputs` is what
    its outputs come in.
    """

    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None
    outputs: Outputs | None
    flops: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The calls of each module by its first name, the model's own being ""; where the forward pass fails, those before.

    `error` is what it failed with, inside the module `failed_in`.
    """

    calls: Mapping[str, tuple[Call, ...]]
    error: BaseException | None
    failed_in: str

    @property
    def output_shape(self) -> tuple[int, ...] | None:
        return self.calls[""][0].output_shape


def probe_model(model: nn.Module, example: Tensor) -> Probe:
    """Run the model on one example in evaluation mode, without gradients.

    Parameters, buffers, training modes and torch's generator are afterwards what they were. Attention is
    computed as products, not by fused kernels: so its parts are called as in training, and its FLOPs counted anywhere.
    """
    record = _Record()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(_as_it_was(model))
        stack.enter_context(_without_fused_attention())
        stack.enter_context(torch.no_grad())
        record.counter = stack.enter_context(_flop_counter())
        for name, module in model.named_modules():
            stack.callback(module.register_forward_pre_hook(record.begin(name)).remove)
            stack.callback(module.register_forward_hook(record.end(name), with_kwargs=True).remove)
        try:
            model.eval()(example)
        except BaseException as error:  # whoever asked says what it means
            if stopping.is_interruption(error):
                raise
            record.error = error
    failed_in = record.running[-1][0] if record.running else ""
    calls = {name: tuple(made) for name, made in record.calls.items()}
    return Probe(calls=calls, error=record.error, failed_in=failed_in)


def build_and_probe(build: Callable[[], nn.Module], shape: DataShape) -> tuple[nn.Module, Probe]:
    """Build a model on the meta device, where nothing is computed, or on the CPU where it needs values; and probe it.

    Raises:
        ModelInvalid: it cannot be run on an example of the shape.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            model, probe = _built_on("meta", build, shape)
        except AblationError:
            raise
        except Exception:  # noqa: BLE001 - whatever lacked a value there has one on the CPU
            probe = None
        if probe is None or probe.error is not None:
            model, probe = _built_on("cpu", build, shape)
    if probe.error is not None:
        raise ModelInvalid(
            f"the model cannot be run on an example of shape {shape_text(shape.input_shape)}: {failure_text(probe)}",
            path="model.name",
        ) from probe.error
    return model, probe


def example_input(shape: DataShape, count: int = 1) -> Tensor:
    """Return so many inputs (B, …) as a model gets them, zeros all: whole numbers where the data are such."""
    return torch.zeros(count, *shape.input_shape, dtype=torch.int64 if shape.vocabulary else torch.float32)


def count_parameters(module: nn.Module) -> int:
    """Count the trainable parameters, each once."""
    return sum(
        parameter.numel() for parameter in module.parameters() if parameter.requires_grad and not is_lazy(parameter)
    )


def failure_text(probe: Probe) -> str:
    """Say what the forward pass failed with, and in which module."""
    where = f"in {probe.failed_in!r}: " if probe.failed_in else ""
    said = " ".join(str(probe.error).split())
    return f"{where}{type(probe.error).__name__}: {said[:300]}"


def shape_text(shape: tuple[int, ...] | None) -> str:
    """Write a shape as `(64, 8, 8)`."""
    return "no tensor" if shape is None else f"({', '.join(map(str, shape))})"


def without_batch(shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if shape is None else shape[1:]


def _built_on(device: str, build: Callable[[], nn.Module], shape: DataShape) -> tuple[nn.Module, Probe]:
    with torch.device(device):
        model = build()
        return model, probe_model(model, example_input(shape))


@dataclass(slots=True, kw_only=True)
class _Record:
    counter: FlopCounterMode = field(default_factory=lambda: _flop_counter())
    running: list[tuple[str, int]] = field(default_factory=list)
    calls: dict[str, list[Call]] = field(default_factory=dict)
    error: BaseException | None = None

    def begin(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _arguments: tuple[Any, ...]) -> None:
            self.running.append((name, self.counter.get_total_flops()))

        return hook

    def end(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            _, before = self.running.pop()
            flops = int(self.counter.get_total_flops() - before)
            given = first_tensor([*arguments, *named.values()])
            self.calls.setdefault(name, []).append(_call(given, output, flops))

        return hook


def _call(given: Tensor | None, output: Any, flops: int) -> Call:
    gave, outputs = first_tensor(output), outputs_of(output)
    return Call(
        input_shape=None if given is None else tuple(given.shape),
        output_shape=None if gave is None else tuple(gave.shape),
        outputs=outputs,
        flops=flops,
        reason=_reason(given, first_output(output)) or _why_not_made_anew(outputs, given),
    )


def _reason(given: Tensor | None, gave: Tensor | None) -> str:
    if given is None:
        return "it takes no tensor"
    if gave is None:
        return "its first output is no tensor"
    if given.shape != gave.shape:
        shapes = [shape_text(without_batch(tuple(tensor.shape))) for tensor in (given, gave)]
        return f"it changes the shape, {shapes[0]} -> {shapes[1]}"
    return "" if given.dtype == gave.dtype else f"it changes the type, {given.dtype} -> {gave.dtype}"


def _why_not_made_anew(outputs: Outputs | None, given: Tensor | None) -> str:
    if outputs is None or given is None:
        return ""
    try:
        outputs.holding(given)
    except TypeError as error:
        return f"what it returns, {error}"
    return ""


def _flop_counter() -> FlopCounterMode:
    """Count a CPU's fused recurrent layers too, as the products that they are on other devices."""
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mkldnn_rnn_layer: _recurrent_flops})


def _recurrent_flops(
    steps: Sequence[int], to_gates: Sequence[int], between: Sequence[int], *_: Any, **_named: Any
) -> int:
    """Count a layer's products, given the shapes of its input (T, B, features) and of its two weights."""
    return 2 * steps[0] * steps[1] * (math.prod(to_gates) + math.prod(between))


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Give every module its training mode and its buffers, to the bit, back afterwards."""
    modules = list(model.modules())
    modes = [module.training for module in modules]
    buffers = [dict(module._buffers) for module in modules]
    values = [
        (buffer, buffer.detach().clone())
        for own in buffers
        for buffer in own.values()
        if buffer is not None and not is_lazy(buffer)
    ]
    try:
        yield
    finally:
        for module, mode, own in zip(modules, modes, buffers, strict=True):
            module.training = mode
            module._buffers.update(own)
        for buffer, value in values:
            buffer.detach().copy_(value)


@contextmanager
def _without_fused_attention() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
