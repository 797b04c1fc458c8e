"""Times one training process per core beside one process with as many threads: images per second of all together.

    python -m benchmarks.processes --output benchmarks/results

It needs torch, torchvision and numpy, no installation and no data, and is run from the repository's root. Both sides
train as runs do (`ablation.training.train`) for a window of time, all processes of a side at once, and count the images
of it. Each is timed alone, and beside one more process that multiplies matrices in a loop, as on a machine that has
something else to do. The four are run in turn; ratios are taken within each turn.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from ablation.executors.cores import available_cores
from benchmarks.case import MODEL, TrainingCase, load_images
from benchmarks.loops import our_epochs
from benchmarks.machine import environment, write_record
from benchmarks.turns import Rates, SideProcess, process_context, ratio, spread_text

SIDE = "ours"
ENDLESS = 10**6
BUSY_MATRIX = 512
RATIOS = {
    "processes / threads": ("processes", "threads"),
    "processes / threads, both beside a busy process": ("processes, busy", "threads, busy"),
    "processes: beside a busy process / alone": ("processes, busy", "processes"),
    "threads: beside a busy process / alone": ("threads, busy", "threads"),
}


def main() -> None:
    options = parse_options()
    where = environment(options)
    print(json.dumps(where, indent=1), flush=True)
    rates = run(make_case(options), options)
    result = {
        "images_per_second": rates,
        "ratios": {name: ratio(rates[a], rates[b]) for name, (a, b) in RATIOS.items()},
    }
    print_result(result)
    if options.output is not None:
        write_record(options.output, {"environment": where, "result": result}, name="processes", kind="cpu")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--processes", type=int, default=available_cores(), help="processes of one thread, or threads of one"
    )
    parser.add_argument("--normalization", choices=("none", "batch"), default="none")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0, help="window of one turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1, help="turns that are not counted")
    parser.add_argument("--output", type=Path, help="folder that gets a dated JSON file")
    return parser.parse_args()


def make_case(options: argparse.Namespace) -> TrainingCase:
    steps = 4  # of an epoch, after which the window is looked at
    images, labels = load_images(None, steps=steps, batch_size=options.batch_size)
    return TrainingCase(
        images=images,
        labels=labels,
        classes=10,
        model={**MODEL, "normalization": options.normalization},
        optimizer="adam",
        augmentation="crop-flip",
        batch_size=options.batch_size,
        steps=steps,
        threads=1,
        device=torch.device("cpu"),
    )


def run(case: TrainingCase, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the images per second of all processes together, by side, for each counted turn."""
    turns = 2 * (options.turns + options.warm_up)
    side = {SIDE: functools.partial(ours_for_a_while, seconds=options.seconds)}
    threaded = dataclasses.replace(case, threads=options.processes)
    cases = {"processes": [case] * options.processes, "threads": [threaded]}
    rates: dict[str, list[float]] = {name: [] for name in ("processes", "threads", "processes, busy", "threads, busy")}
    with contextlib.ExitStack() as stack:
        sides = {
            name: [stack.enter_context(contextlib.closing(SideProcess(side, one, turns=turns))) for one in alike]
            for name, alike in cases.items()
        }
        for turn in range(options.turns + options.warm_up):
            for name in rates:
                with busy_process() if name.endswith("busy") else contextlib.nullcontext():
                    rate = summed_rate(sides[name.partition(",")[0]])
                if turn >= options.warm_up:
                    rates[name].append(rate)
    return rates


def summed_rate(processes: Sequence[SideProcess]) -> float:
    for process in processes:
        process.begin_turn(SIDE)
    return sum(process.rate() for process in processes)


def ours_for_a_while(case: TrainingCase, *, turns: int, seconds: float) -> Rates:
    """Train until the seconds are over, so that processes which share the machine do so for the whole turn."""
    epochs = our_epochs(case, epochs=ENDLESS)
    for _ in range(turns):
        begun, images = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            next(epochs)
            images += case.images_per_turn
        yield images / (time.perf_counter() - begun)


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    """Have a process multiply matrices, from before the block until after it."""
    context = process_context()
    here, there = context.Pipe()
    process = context.Process(target=multiply_on, args=(there,), daemon=True)
    process.start()
    here.recv()
    try:
        yield
    finally:
        process.kill()
        process.join()


def multiply_on(started: Connection) -> None:
    torch.set_num_threads(1)
    matrix = torch.randn(BUSY_MATRIX, BUSY_MATRIX) / BUSY_MATRIX
    started.send(None)
    while True:
        torch.mm(matrix, matrix)


def print_result(result: Mapping[str, Any]) -> None:
    print(f"\n{'side':<18}{'images/s':>10}{'lowest':>10}{'highest':>10}")
    for name, rates in result["images_per_second"].items():
        print(f"{name:<18}{statistics.median(rates):>10.0f}{min(rates):>10.0f}{max(rates):>10.0f}")
    for name, found in result["ratios"].items():
        print(f"{name}: {spread_text(found)}")


if __name__ == "__main__":
    main()
