"""Times every kind of variant that is shipped: is our loop anywhere slower than the same network, trained plainly?

    python -m benchmarks.variants --output benchmarks/results

It needs torch, torchvision and numpy, no installation and no data, and is run from the repository's root. Each variant
is trained by `ours`, as a run trains it, and by `eager`: the network as the textbook writes it (convolution, norm and
activation as placed, then pooling), NCHW, standardized float tensors in memory, the optimizer as PyTorch makes it.
torchvision's networks are the same on both sides, but for layout and optimizer.

The two are run in turn, each in a process of its own that no other variant has used; the ratio is taken within each
turn, above 1 where ours is faster. Variants whose median is below 1 are named at the end.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.case import MODEL, Augmentation, Optimizer, TrainingCase, load_images
from benchmarks.loops import eager, ours
from benchmarks.machine import environment, write_record
from benchmarks.turns import ratio, run_in_turn

NORMS = ("batch", "layer", "group", "instance")
OPTIMIZERS: tuple[Optimizer, ...] = ("adamw", "sgd")
AUGMENTATIONS: tuple[Augmentation, ...] = ("flip", "crop", "crop-flip")
THIN_RESNET = {"name": "torchvision:resnet18", "stem": "small", "width": 0.25}


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedVariant:
    """What is changed of the default network and training."""

    name: str
    model: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Optimizer = "adam"
    augmentation: Augmentation = "none"


def variants() -> Iterator[TimedVariant]:
    """Yield the default, each change of it alone, what the shipped studies combine, and networks of torchvision."""
    yield TimedVariant(name="default")
    for norm in NORMS:
        for placement in ("before", "after"):
            settings = {"normalization": norm, "normalization_placement": placement}
            yield TimedVariant(name=f"{norm} norm {placement} activation", model=settings)
    for activation in ("leaky_relu", "gelu", "silu", "tanh", "elu"):
        yield TimedVariant(name=f"activation {activation}", model={"activation": activation})
    for depth in (2, 4):
        yield TimedVariant(name=f"depth {depth}", model={"depth": depth})
    yield TimedVariant(name="depth 4, batch norm", model={"depth": 4, "normalization": "batch"})
    for kernel in (1, 5):
        yield TimedVariant(name=f"kernel {kernel}", model={"kernel": kernel})
    yield TimedVariant(name="width 8", model={"width": 8})
    yield TimedVariant(
        name="width 8, repeats 1, batch norm", model={"width": 8, "repeats": 1, "normalization": "batch"}
    )
    yield TimedVariant(name="dropout 0.3", model={"dropout": 0.3})
    for optimizer in OPTIMIZERS:
        yield TimedVariant(name=f"optimizer {optimizer}", optimizer=optimizer)
    for augmentation in AUGMENTATIONS:
        yield TimedVariant(name=f"augmentation {augmentation}", augmentation=augmentation)
    for norm in ("batch", "group", "layer", "instance", "none"):
        yield TimedVariant(name=f"thin resnet18, {norm} norm", model={**THIN_RESNET, "normalization": norm})
    for network in ("resnet18", "mobilenet_v3_small"):
        yield TimedVariant(name=network, model={"name": f"torchvision:{network}"})


def main() -> None:
    options = parse_options()
    where = environment(options)
    print(json.dumps(where, indent=1))
    print(f"\n{'variant':<32}{'ours ms':>9}{'eager ms':>10}{'ratio':>8}{'lowest':>8}{'highest':>9}")
    begun, results = time.perf_counter(), []
    for variant in variants():
        if options.only in variant.name:
            results.append(timed(variant, options))
            print_result(results[-1])
    print(f"\n{len(results)} variants in {time.perf_counter() - begun:.0f} s")
    slower = [result["variant"] for result in results if result["ours / eager"]["median"] < 1]
    print(f"slower than eager: {', '.join(slower) or 'none'}")
    if options.output is not None:
        write_record(options.output, {"environment": where, "results": results}, name="variants", kind="cpu")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5, help="training steps of one turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1, help="turns that are not counted")
    parser.add_argument("--only", default="", help="variants with this in their name")
    parser.add_argument("--output", type=Path, help="folder that gets a dated JSON file")
    return parser.parse_args()


def timed(variant: TimedVariant, options: argparse.Namespace) -> dict[str, Any]:
    case = make_case(variant, options)
    rates = run_in_turn(case, [{"ours": ours}, {"eager": eager}], turns=options.turns, warm_up=options.warm_up)
    return {
        "variant": variant.name,
        **{key: value for key, value in dataclasses.asdict(variant).items() if key != "name"},
        "images_per_second": rates,
        "median_step_ms": {name: 1000 * case.batch_size / statistics.median(values) for name, values in rates.items()},
        "ours / eager": ratio(rates["ours"], rates["eager"]),
    }


def make_case(variant: TimedVariant, options: argparse.Namespace) -> TrainingCase:
    images, labels = load_images(None, steps=options.steps, batch_size=options.batch_size)
    return TrainingCase(
        images=images,
        labels=labels,
        classes=10,
        model=dict(variant.model) if "name" in variant.model else {**MODEL, **variant.model},
        optimizer=variant.optimizer,
        augmentation=variant.augmentation,
        batch_size=options.batch_size,
        steps=options.steps,
        threads=options.threads,
        device=torch.device("cpu"),
    )


def print_result(result: Mapping[str, Any]) -> None:
    step_ms, found = result["median_step_ms"], result["ours / eager"]
    print(
        f"{result['variant']:<32}{step_ms['ours']:>9.1f}{step_ms['eager']:>10.1f}"
        f"{found['median']:>8.2f}{found['lowest']:>8.2f}{found['highest']:>9.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
