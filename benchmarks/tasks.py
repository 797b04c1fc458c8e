"""Times a training step of each task in the engine, run eagerly, beside plain loops on the same model and data.

    python -m benchmarks.tasks --output benchmarks/results

It needs torch, torchvision and numpy, no installation and no data, and is run from the repository's root. The models
are small ones of the kind that each task is trained with, the data made up. Of each task there are three sides:

- `ours`: `ablation.training.train` as a run calls it, its own `seconds` taken for each epoch.
- `plain`: what one writes first without a loader: tensors in memory, shuffled by `randperm` and indexed, plain Adam,
  the loss and the task's score added up on the device and read once an epoch.
- `loader`: the same with a shuffled DataLoader in the loop's own process, and both read by `.item()` each step.

Each side has a process of its own. They are run in turn, ratios are taken within each turn (above 1 where ours is
faster), and their median and range over the turns are shown.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from ablation.records import DataShape, TaskName
from ablation.training import TrainingData, TrainingSettings, train
from ablation.training.tasks import make_objective
from ablation.worker.data import made_up_data
from benchmarks.machine import environment, write_record
from benchmarks.turns import Rates, Side, ratio, run_in_turn, spread_text

LEARNING_RATE = 1e-3
CPU = torch.device("cpu")


class Gpt(nn.Module):
    """A small decoder over characters: (B, T) whole numbers to logits (B, T, vocabulary)."""

    def __init__(self, vocabulary: int, context: int, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Parameter(0.02 * torch.randn(context, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context))

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(self.token(tokens) + self.place, mask=self.mask, is_causal=True))
        return logits


def network(shape: DataShape) -> nn.Module:
    """Return a perceptron of two hidden layers for features."""
    hidden = [nn.Linear(shape.features[0], 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(64, shape.outputs))


def convolutions(shape: DataShape, width: int = 32) -> list[nn.Module]:
    return [
        *(nn.Conv2d(shape.channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedTask:
    """What is trained: data of a shape, a model for it, and what a plain loop computes of outputs and targets.

    `score` gives what is right, or off, in a batch, as a sum.
    """

    shape: DataShape
    model: Callable[[DataShape], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], Tensor]


LETTERS = tuple(map(str, range(10)))
TASKS: Mapping[TaskName, TimedTask] = {
    "classification": TimedTask(
        shape=DataShape(channels=3, height=32, width=32, classes=LETTERS),
        model=lambda shape: nn.Sequential(
            *convolutions(shape), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, shape.outputs)
        ),
        loss=functional.cross_entropy,
        score=lambda outputs, targets: (outputs.argmax(1) == targets).sum(),
    ),
    "regression": TimedTask(
        shape=DataShape(channels=0, height=0, width=0, classes=(), features=(16,), task="regression"),
        model=network,
        loss=lambda outputs, targets: functional.mse_loss(outputs.squeeze(1), targets),
        score=lambda outputs, targets: (outputs.squeeze(1) - targets).square().sum(),
    ),
    "multilabel": TimedTask(
        shape=DataShape(
            channels=0, height=0, width=0, classes=LETTERS, features=(16,), task="multilabel", target_shape=(10,)
        ),
        model=network,
        loss=lambda outputs, targets: functional.binary_cross_entropy_with_logits(outputs, targets.float()),
        score=lambda outputs, targets: ((outputs > 0) == targets.bool()).sum(),
    ),
    "tokens": TimedTask(
        shape=DataShape(
            channels=0,
            height=0,
            width=0,
            classes=tuple(map(str, range(64))),
            features=(64,),
            task="tokens",
            target_shape=(64,),
            vocabulary=64,
        ),
        model=lambda shape: Gpt(shape.vocabulary, shape.features[0]),
        loss=lambda outputs, targets: functional.cross_entropy(outputs.flatten(0, 1), targets.flatten()),
        score=lambda outputs, targets: (outputs.argmax(2) == targets).sum(),
    ),
    "segmentation": TimedTask(
        shape=DataShape(
            channels=3, height=32, width=32, classes=LETTERS[:4], task="segmentation", target_shape=(32, 32)
        ),
        model=lambda shape: nn.Sequential(*convolutions(shape), nn.Conv2d(32, shape.outputs, 1)),
        loss=functional.cross_entropy,
        score=lambda outputs, targets: (outputs.argmax(1) == targets).sum(),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCase:
    """What the sides of a task are given."""

    task: TaskName
    batch_size: int
    steps: int
    threads: int

    def set_up(self) -> None:
        torch.set_num_threads(self.threads)

    @property
    def count(self) -> int:
        return self.batch_size * self.steps

    def data(self) -> TrainingData:
        torch.manual_seed(0)
        return made_up_data(TASKS[self.task].shape, self.count, CPU, layout=torch.channels_last)

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return TASKS[self.task].model(TASKS[self.task].shape)


def ours(case: TaskCase, *, turns: int) -> Rates:
    settings = TrainingSettings(
        epochs=turns,
        batch_size=case.batch_size,
        optimizer="adam",
        learning_rate=LEARNING_RATE,
        schedule="constant",
        momentum=0.9,
        weight_decay=0.0,
        epoch_choice="last",
        augmentation="none",
    )
    objective = make_objective(TASKS[case.task].shape)
    for metrics in train(case.model(), case.data(), settings, study_seed=0, seed=0, objective=objective):
        yield metrics.images_per_second


def plain(case: TaskCase, *, turns: int) -> Rates:
    timed, model = TASKS[case.task], case.model().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    inputs, targets = tensors(case)
    for _ in range(turns):
        begun = time.perf_counter()
        sums = torch.zeros(2)
        for indices in torch.randperm(case.count).split(case.batch_size):
            outputs, loss = step(timed, model, optimizer, inputs[indices], targets[indices])
            sums[0] += loss * len(indices)
            sums[1] += timed.score(outputs, targets[indices])
        sums.tolist()
        yield case.count / (time.perf_counter() - begun)


def loader(case: TaskCase, *, turns: int) -> Rates:
    timed, model = TASKS[case.task], case.model().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    batches = DataLoader(TensorDataset(*tensors(case)), batch_size=case.batch_size, shuffle=True)
    for _ in range(turns):
        begun = time.perf_counter()
        total, score = 0.0, 0.0
        for inputs, targets in batches:
            outputs, loss = step(timed, model, optimizer, inputs, targets)
            total += loss.item() * len(inputs)
            score += timed.score(outputs, targets).item()
        yield case.count / (time.perf_counter() - begun)


SIDES: Mapping[str, Side] = {"ours": ours, "plain": plain, "loader": loader}


def tensors(case: TaskCase) -> tuple[Tensor, Tensor]:
    """Return inputs and targets as a model and PyTorch's losses take them; images standardized, (N, C, H, W)."""
    data = case.data()
    inputs = data.images
    if inputs.dtype == torch.uint8:
        inputs = ((inputs - data.mean) / data.deviation).permute(0, 3, 1, 2).contiguous()
    elif not inputs.is_floating_point():
        inputs = inputs.long()
    return inputs, data.labels.long() if data.labels.dtype == torch.int32 else data.labels


def step(
    timed: TimedTask, model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Take one step, and return the batch's outputs and loss."""
    outputs = model(inputs)
    loss = timed.loss(outputs, targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return outputs.detach(), loss.detach()


def main() -> None:
    options = parse_options()
    where = environment(options)
    print(json.dumps(where, indent=1), flush=True)
    print(
        f"\n{'task':<16}{'ours ms':>9}{'plain ms':>10}{'loader ms':>11}  ours is so many times as fast as plain, loader"
    )
    results = []
    for result in measured(options):
        results.append(result)
        print_result(result)
    if options.output is not None:
        write_record(options.output, {"environment": where, "results": results}, name="tasks", kind="cpu")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="torch threads of every side")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=40, help="training steps of one turn")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--warm-up", type=int, default=1, help="turns that are not counted")
    parser.add_argument("--task", choices=TASKS, help="this one alone")
    parser.add_argument("--output", type=Path, help="folder that gets a dated JSON file")
    return parser.parse_args()


def measured(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for task in TASKS if options.task is None else [options.task]:
        case = TaskCase(task=task, batch_size=options.batch_size, steps=options.steps, threads=options.threads)
        sides = [{name: side} for name, side in SIDES.items()]
        rates = run_in_turn(case, sides, turns=options.turns, warm_up=options.warm_up)
        yield {
            "task": task,
            "parameters": sum(parameter.numel() for parameter in case.model().parameters()),
            "examples_per_second": rates,
            "median_step_ms": {name: 1000 * case.batch_size / statistics.median(each) for name, each in rates.items()},
            "ratios": {f"ours / {name}": ratio(rates["ours"], rates[name]) for name in rates if name != "ours"},
        }


def print_result(result: Mapping[str, Any]) -> None:
    times = result["median_step_ms"]
    ratios = ", ".join(map(spread_text, result["ratios"].values()))
    print(
        f"{result['task']:<16}{times['ours']:>9.2f}{times['plain']:>10.2f}{times['loader']:>11.2f}  {ratios}",
        flush=True,
    )


if __name__ == "__main__":
    main()
