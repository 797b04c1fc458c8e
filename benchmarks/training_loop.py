"""Times our training loop beside others: images per second on equal cores, and how near it comes to what there is.

    python -m benchmarks.training_loop --output benchmarks/results

It needs torch, torchvision and numpy, no installation and no data, and is run from the repository's root. All loops
train the same network on the same images with the same batch size, threads and device, at the same precision:

- `ours`: `ablation.training.train` as a run calls it, its own `seconds` taken for each epoch.
- `ours in bf16`: the same with `precision="bf16"`: autocast, which gains where the processor has bf16 units.
- `eager`: what one writes first without a loader: standardized float tensors in memory, NCHW, conv → ReLU → pool,
  plain Adam, nothing read back inside the loop; augmentation by slicing padded images.
- `careful`: the same, channels-last and with fused Adam.
- `conventional`: a DataLoader with worker processes (beside the threads of the loop) and torchvision's v2 transforms,
  NCHW, plain Adam, loss and accuracy by `.item()` each step. Timed while its workers run, from and to full queues, so
  that their start costs it nothing.
- `lightning`: the same network, loader and transforms by PyTorch Lightning's Trainer, its logger, checkpoints, progress
  bar and summary off, timed by a callback between the same batches; only where `lightning` is installed.
- `fixed batch`: our step on one batch, over and over: what is left of `ours` without shuffling and augmentation.
- `matrix product`: float32 products of square matrices, the fastest of three sizes: what the threads can reach. The
  share of it that a loop reaches counts 3 × forward FLOPs - forward FLOPs of the first layer for an image, as the first
  layer's input needs no gradient (convolutions and products only; 3.954 GFLOP a step of 64 with the default network).

Each loop has a process of its own, so that none gets the memory that another has made ready (the fixed batch shares
that of `ours`, whose floor it is). They are run in turn, again and again; a ratio is taken within each turn, so that
what else a machine does meanwhile touches all loops alike, and its median and range over the turns are shown.
"""

import argparse
import importlib.util
import json
import multiprocessing
import statistics
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.case import MODEL, Augmentation, TrainingCase, load_images, training_flops
from benchmarks.loader_loop import conventional
from benchmarks.loops import careful, eager, fixed_batch, matrix_product, ours
from benchmarks.machine import TRAINING_LIBRARIES, environment, write_record
from benchmarks.plain_model import plain_model
from benchmarks.turns import Side, ratio, run_in_turn, spread_text

AUGMENTATIONS: Mapping[str, tuple[Augmentation, ...]] = {
    "none": ("none",),
    "crop-flip": ("crop-flip",),
    "both": ("none", "crop-flip"),
}
PRODUCT = "matrix product"


def main() -> None:
    options = parse_options()
    gpu = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else None
    where = environment(options, libraries=(*TRAINING_LIBRARIES, "lightning"), gpu=gpu)
    print(json.dumps(where, indent=1), flush=True)
    results = []
    for augmentation in AUGMENTATIONS[options.augmentation]:
        case = make_case(options, augmentation=augmentation)
        rates = run_in_turn(case, groups(), turns=options.turns, warm_up=options.warm_up)
        results.append(summarize(case, rates))
        print_result(results[-1])
    if options.output is not None:
        kind = options.device.replace(":", "")
        write_record(options.output, {"environment": where, "results": results}, name="training-loop", kind=kind)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="torch threads of every loop")
    parser.add_argument("--loader-workers", type=int, default=2, help="processes of a loader, where there is one")
    parser.add_argument("--augmentation", choices=AUGMENTATIONS, default="both")
    parser.add_argument("--normalization", choices=("none", "batch"), default="none")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=40, help="training steps of one turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1, help="turns that are not counted")
    parser.add_argument("--data", type=Path, help="folder of train_images.npy (uint8 N, H, W, C) and train_labels.npy")
    parser.add_argument("--output", type=Path, help="folder that gets a dated JSON file")
    return parser.parse_args()


def make_case(options: argparse.Namespace, *, augmentation: Augmentation) -> TrainingCase:
    images, labels = load_images(options.data, steps=options.steps, batch_size=options.batch_size)
    return TrainingCase(
        images=images,
        labels=labels,
        classes=int(labels.max()) + 1,
        model={**MODEL, "normalization": options.normalization},
        optimizer="adam",
        augmentation=augmentation,
        batch_size=options.batch_size,
        steps=options.steps,
        threads=options.threads,
        device=torch.device(options.device),
        loader_workers=options.loader_workers,
        loader_start=multiprocessing.get_start_method(),
    )


def groups() -> list[dict[str, Side]]:
    """Return the sides by name; those that share a process are together."""
    in_bf16: Side = partial(ours, precision="bf16")
    alone: dict[str, Side] = {"ours in bf16": in_bf16, "eager": eager, "careful": careful, "conventional": conventional}
    if importlib.util.find_spec("lightning") is not None:
        from benchmarks.lightning_loop import trainer_fit

        alone["lightning"] = trainer_fit
    alone[PRODUCT] = matrix_product
    return [{"ours": ours, "fixed batch": fixed_batch}, *({name: side} for name, side in alone.items())]


def summarize(case: TrainingCase, rates: Mapping[str, list[float]]) -> dict[str, Any]:
    loops = {name: values for name, values in rates.items() if name != PRODUCT}
    flops = training_flops(case)
    reached = {name: ratio([flops * rate for rate in rates[name]], rates[PRODUCT]) for name in ("ours", "fixed batch")}
    return {
        "augmentation": case.augmentation,
        "normalization": case.model["normalization"],
        "parameters": sum(parameter.numel() for parameter in plain_model(case.model, case.shape).parameters()),
        "training_flops_per_image": flops,
        "images_per_second": loops,
        "median_step_ms": {name: 1000 * case.batch_size / statistics.median(rate) for name, rate in loops.items()},
        "ratios": {f"ours / {name}": ratio(rates["ours"], loops[name]) for name in loops if name != "ours"},
        "matrix_product_flop_per_second": rates[PRODUCT],
        "share_of_matrix_product": reached,
    }


def print_result(result: Mapping[str, Any]) -> None:
    print(
        f"\naugmentation {result['augmentation']}, normalization {result['normalization']}, "
        f"{result['parameters']:,} parameters"
    )
    print(f"{'loop':<14}{'ms/step':>9}{'images/s':>10}{'lowest':>10}{'highest':>10}")
    for name, rates in result["images_per_second"].items():
        step_ms = result["median_step_ms"][name]
        print(f"{name:<14}{step_ms:>9.1f}{statistics.median(rates):>10.0f}{min(rates):>10.0f}{max(rates):>10.0f}")
    for name, found in result["ratios"].items():
        print(f"{name}: {spread_text(found)}")
    product = statistics.median(result["matrix_product_flop_per_second"])
    print(f"{PRODUCT}: {product / 1e9:.1f} GFLOP/s; of it reached, within each turn")
    for name, found in result["share_of_matrix_product"].items():
        print(f"- by {name}: {spread_text(found)}", flush=True)


if __name__ == "__main__":
    main()
