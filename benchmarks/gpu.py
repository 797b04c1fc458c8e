"""Measures all that is claimed of a GPU, in one command and under eight minutes, and writes one result file.

    python -m benchmarks.gpu --output benchmarks/results

It needs torch, torchvision and numpy, no installation and no data, and is run from the repository's root. The network
is the course assignment's (364,426 parameters) at batch 64 with crop and flip, on made-up images of CIFAR-10's shape:

- what the card does: bytes per second of a copy, products in fp32, TF32 and bf16;
- one run, in turn: a conventional loop (two loader processes, `.item()` each step), eagerly on data that lies on the
  device, and each step as one CUDA graph; its evaluation, eagerly and as a graph;
- 8 and 32 runs fused, by each backend, in fp32, TF32 and bf16;
- the bytes that the operations of a fused bf16 step move, as time at the copy's rate;
- what the paths agree in: losses, first gradients, accuracies over ten seeds;
- what a graph cannot capture, and how many runs fit.

The file is written after each part, so that what was measured is there if a later part fails. With `--device cpu` the
parts are only tried, at small sizes: no figure of it means anything.
"""

import argparse
import json
import statistics
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ablation.training import set_precision
from benchmarks import gpu_parts as parts
from benchmarks.loader_loop import conventional
from benchmarks.machine import environment, write_record

ON_GPU = parts.Sizes(
    batch_size=64,
    steps=200,
    turns=5,
    fused=(8, 32),
    seeds=10,
    epochs=8,
    images=10_000,
    product_side=8192,
    copied_bytes=1 << 30,
)
ON_CPU = parts.Sizes(
    batch_size=8,
    steps=2,
    turns=2,
    fused=(2,),
    seeds=2,
    epochs=1,
    images=40,
    product_side=256,
    copied_bytes=1 << 20,
)


def main() -> None:
    options = parse_options()
    device = torch.device(options.device)
    sizes = ON_GPU if device.type == "cuda" else ON_CPU
    set_precision("fp32")
    record: dict[str, Any] = {"environment": environment(options, gpu=card(device)), "seconds": {}}
    print(json.dumps(record["environment"], indent=1))
    for name, measure in measurements(device, sizes).items():
        begun = time.perf_counter()
        try:
            record[name] = measure(record)
        except Exception:  # noqa: BLE001 - the other parts are worth having
            record[name] = {"error": traceback.format_exc()}
        record["seconds"][name] = time.perf_counter() - begun
        print(f"\n{name} ({record['seconds'][name]:.0f} s)\n{json.dumps(record[name], indent=1)}", flush=True)
        if options.output is not None:
            write_record(options.output, record, name="gpu", kind=options.device.replace(":", ""))
    if device.type == "cuda":
        print_goals(record["goals"])


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--output", type=Path, help="folder that gets a dated JSON file")
    return parser.parse_args()


def measurements(device: torch.device, sizes: parts.Sizes) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Return the parts in order; each is given what was measured before it."""
    case = parts.case_of(device, sizes)
    return {
        "rates": lambda _: parts.device_rates(device, sizes),
        "solo": lambda _: parts.solo_paths(device, sizes, conventional(case, turns=sizes.turns + 2)),
        "fused": lambda _: parts.fused_paths(device, sizes),
        "fused_bf16_bytes": lambda record: parts.bytes_moved(
            device, sizes, backend=largest(record, "bf16")["fastest"], precision="bf16"
        ),
        "agreement": lambda _: parts.agreement(device, sizes),
        "evaluation": lambda _: parts.evaluations(device, sizes),
        "fallbacks": lambda _: parts.fallbacks(device, sizes),
        "goals": goals,
    }


def largest(record: dict[str, Any], precision: str) -> dict[str, Any]:
    """Return what was measured of the largest fused training in a precision."""
    found = [one for one in record["fused"] if one["precision"] == precision and "fastest" in one]
    return max(found, key=lambda one: one["runs"])


def goals(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each goal with what was measured, or why it could not be.

    Ratios are of model-steps per second over whole epochs, in fp32.
    """
    found = []
    for what, limit, is_floor, measure in GOALS:
        goal = {"goal": what, "at_least" if is_floor else "at_most": limit}
        try:
            value = measure(record)
            found.append({**goal, "measured": value, "is_met": value >= limit if is_floor else value <= limit})
        except Exception as error:  # noqa: BLE001 - a part before has failed; the other goals are worth having
            found.append({**goal, "error": repr(error)})
    return found


def solo(record: dict[str, Any], name: str) -> float:
    return statistics.median(record["solo"][name])


def speed_up(record: dict[str, Any], name: str) -> float:
    """Return how many times as many model-steps per second fused runs take as one run on another path."""
    fused = largest(record, "fp32")
    return solo(record, name) * fused["runs"] / statistics.median(fused["epoch_seconds_per_step"])


def above_the_bytes(record: dict[str, Any]) -> float:
    fused = largest(record, "bf16")
    floor = record["fused_bf16_bytes"] / record["rates"]["copy_bytes_per_second"]
    return fused["step_seconds"][fused["fastest"]] / floor


def off_in_standard_errors(record: dict[str, Any], backend: str) -> float:
    agreed = record["agreement"]
    alone = agreed["accuracy_alone"]
    noise = max(statistics.stdev(alone), 1e-4) / len(alone) ** 0.5
    return abs(statistics.mean(agreed[f"accuracy_{backend}"]) - statistics.mean(alone)) / noise


GOALS: list[tuple[str, float, bool, Callable[[dict[str, Any]], float]]] = [
    ("graph / eager", 2.5, True, lambda record: solo(record, "eager") / solo(record, "graph")),
    ("fused / graph", 6, True, lambda record: speed_up(record, "graph")),
    ("fused / eager", 20, True, lambda record: speed_up(record, "eager")),
    ("fused / conventional", 100, True, lambda record: speed_up(record, "conventional")),
    ("fused bf16 step / time to move its bytes", 3, False, above_the_bytes),
    (
        "largest relative error of a first gradient",
        1e-4,
        False,
        lambda record: max(record["agreement"]["gradient_relative"].values()),
    ),
    (
        "relative error of the graph's first loss",
        1e-3,
        False,
        lambda record: float(record["agreement"]["graph_epoch_1_loss_relative"]),
    ),
    *(
        (
            f"accuracy of {backend} - alone, in standard errors",
            3,
            False,
            partial(off_in_standard_errors, backend=backend),
        )
        for backend in ("grouped", "matmul", "streams")
    ),
]


def print_goals(found: list[dict[str, Any]]) -> None:
    for one in found:
        limit = f"≥ {one['at_least']:g}" if "at_least" in one else f"≤ {one['at_most']:g}"
        if "error" in one:
            print(f"failed  {one['goal']}: {one['error']} ({limit})")
        else:
            print(f"{'met   ' if one['is_met'] else 'missed'}  {one['goal']}: {one['measured']:.3g} ({limit})")


def card(device: torch.device) -> str | None:
    if device.type != "cuda":
        return None
    capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
    return f"{torch.cuda.get_device_name(device)}, compute capability {capability}, CUDA {torch.version.cuda}"


if __name__ == "__main__":
    main()
