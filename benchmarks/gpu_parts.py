"""The parts of what is measured of a GPU, in order of worth: each by its name, with the time that it may take."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ablation.records import Precision
from benchmarks import gpu_convolutions, gpu_device, gpu_training
from benchmarks.gpu_case import Sizes

PRECISIONS: tuple[Precision, ...] = ("bf16", "tf32", "fp32")
"""Those that goals are stated in first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is measured by one process; `limit_s` holds on an H200 with room to spare."""

    name: str
    says: str
    limit_s: float
    measure: Callable[[torch.device, Sizes], object]
    needs_gpu: bool = False


def _of_each_precision(name: str, says: str, limit_s: float, measure: Callable[..., object]) -> Iterator[Part]:
    for precision in PRECISIONS:
        yield Part(
            name=f"{name}-{precision}",
            says=f"{says}, in {precision}",
            limit_s=limit_s,
            measure=partial(measure, precision=precision),
            needs_gpu=precision == "tf32",
        )


PARTS: tuple[Part, ...] = (
    Part(name="rates", says="the card, its copy and its products", limit_s=20, measure=gpu_device.device_rates),
    Part(
        name="gradients",
        says="first gradients and losses of the paths, one against the other",
        limit_s=30,
        measure=gpu_training.gradients,
    ),
    Part(
        name="failed-capture",
        says="what a capture that fails leaves behind",
        limit_s=15,
        measure=gpu_device.failed_capture,
        needs_gpu=True,
    ),
    *_of_each_precision(
        "convolutions", "each convolution of the most runs, by way and layout", 20, gpu_convolutions.convolutions
    ),
    *_of_each_precision(
        "benchmarked", "the grouped ones, by algorithms that cuDNN timed", 15, gpu_convolutions.benchmarked
    ),
    *_of_each_precision("solo", "one run, eagerly and as a graph", 15, gpu_training.solo),
    *_of_each_precision("conventional", "one run in a conventional loop", 25, gpu_training.conventional),
    *_of_each_precision("fused", "runs together, by backend", 40, gpu_training.fused),
    Part(
        name="traffic",
        says="kernels and bytes of a fused step, counted",
        limit_s=20,
        measure=gpu_training.traffic,
    ),
    Part(name="fallbacks", says="what cannot be captured, and what fits", limit_s=25, measure=gpu_training.fallbacks),
    Part(name="evaluation", says="an evaluation, eagerly and as a graph", limit_s=15, measure=gpu_training.evaluation),
    Part(
        name="replays",
        says="what generators cost a graph",
        limit_s=15,
        measure=gpu_device.replays,
        needs_gpu=True,
    ),
    Part(
        name="accuracies",
        says="accuracies of ten seeds, alone and fused",
        limit_s=50,
        measure=gpu_training.accuracies,
    ),
)


def chosen_parts(names: Sequence[str]) -> tuple[Part, ...]:
    """Return the parts of these names, or of what stands before their last hyphen, in the order of PARTS.

    Raises:
        SystemExit: there is none of a name.
    """
    if not names:
        return PARTS
    for name in names:
        if not any(_is_called(part, name) for part in PARTS):
            raise SystemExit(f"no part is called {name!r}; there are {', '.join(part.name for part in PARTS)}")
    return tuple(part for part in PARTS if any(_is_called(part, name) for name in names))


def _is_called(part: Part, name: str) -> bool:
    return part.name == name or part.name.rpartition("-")[0] == name
