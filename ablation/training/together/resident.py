"""Trains models with all that a step needs on the device, so that a step is one graph and the host only starts it.

An epoch's order and augmentation are drawn as for a model alone, copied to the device, and read there by a cursor;
learning rates come from a table. What is drawn for the next epoch is drawn while the device computes this one.
"""

import contextlib
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn

from ablation.streams import Purpose, stream_seed
from ablation.training.averages import Averages, lent
from ablation.training.batches import (
    EpochDraw,
    batch_bounds,
    draw_epoch,
    epoch_examples,
    gather,
    gather_targets,
    make_moves,
    standardize,
    standardize_stacked,
)
from ablation.training.clipping import clip_alone, clip_stacked
from ablation.training.evaluation import Evaluation
from ablation.training.optimizers import check_can, optimizer_over
from ablation.training.schedules import learning_rates
from ablation.training.settings import Loss, Member, TrainingSettings
from ablation.training.snapshots import (
    OptimizerState,
    StepsSnapshot,
    copied,
    make_optimizer_state,
    optimizer_state,
    put_back,
    put_back_optimizer,
)
from ablation.training.steps import RunningMeans, Split, first_step_not_finite, own_loss, split_of
from ablation.training.tasks import Scale, mean_over
from ablation.training.together.dropout import CountedMasks
from ablation.training.together.models import Models
from ablation.training.together.replay import Captures, Replayed
from ablation.training.together.watching import watching

WARM_UP_STEPS = 3
WATCHED_STEPS = 2
CPU_EVALUATION_IMAGES = 100
GPU_EVALUATION_IMAGES = 4_000


@contextlib.contextmanager
def algorithms_timed() -> Iterator[None]:
    """Let cuDNN time its algorithms where it meets a shape for the first time, but not in a capture, which would fail.

    What it has chosen it keeps, and takes within the capture and after it.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = not torch.cuda.is_current_stream_capturing()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def evaluated_at_once(device: torch.device, batch_size: int) -> int:
    """Return how many images of each member a part of an evaluation has.

    On a GPU that is the same for any number of members, as `members_that_fit` measures the memory of one alone.
    """
    return CPU_EVALUATION_IMAGES if device.type == "cpu" else min(GPU_EVALUATION_IMAGES, 4 * batch_size)


class ResidentSteps:
    """Trains members on one data set and device, whose settings differ in numbers of the optimizer alone.

    On a GPU a step, and an evaluation, is captured in a CUDA graph after the first few; what is left over at an
    epoch's end has a graph of its own. On a CPU the same operations are called one by one.

    Raises:
        PathUnavailable: from its methods: the models cannot be trained in this way.
    """

    def __init__(
        self,
        members: Sequence[Member],
        models: Models,
        *,
        study_seed: int,
        loss: Loss | None,
        generators: Sequence[torch.Generator],
        masks: CountedMasks | None = None,
    ) -> None:
        self._members, self._models, self._objective = members, models, members[0].objective
        self._loss = loss or own_loss(members[0])
        weights = [member.class_weights for member in members if member.class_weights is not None]
        self._weights = [torch.stack(weights)] if loss is None and weights else []  # (S, K)
        self._study_seed, self._generators, self._masks = study_seed, generators, masks
        first = members[0]
        self._data, self._settings = first.data, first.settings
        self._device = first.data.images.device
        self._count = len(first.data.train)
        self._bounds = batch_bounds(self._count, self._settings.batch_size)
        self._captures = Captures(self._device, generators) if self._device.type == "cuda" else None
        self._mean, self._deviation = (
            torch.stack([getattr(member.data, name) for member in members]) for name in ("mean", "deviation")
        )  # (S, C)
        self._scale, self._offset = 1 / self._deviation, -self._mean / self._deviation
        scales = [member.data.scale for member in members]
        self._scales: Scale | None = None
        if all(scale is not None for scale in scales):
            mean, deviation = (torch.stack([scale[part] for scale in scales if scale is not None]) for part in (0, 1))
            self._scales = mean.unsqueeze(1), deviation.unsqueeze(1)  # (S, 1, …)
        self._moves = make_moves(self._data.images, self._settings.augmentation)
        self._drawn = self._draw(1)
        self._examples = self._on_device(self._drawn)
        self._prepare_optimizer()
        self._prepare_steps()
        decay = first.settings.ema
        self._averages = Averages(models.parameters(slice(None)), decay) if decay is not None else None
        self._evaluations: dict[Split, Replayed[tuple[Tensor, Tensor, Tensor | None]]] = {}

    def train_epoch(self, epoch: int) -> list[RunningMeans]:
        self._seed(epoch)
        with self._on_stream():
            self._examples.copy_(self._on_device(self._drawn))
            for tensor in (self._loss_sums, self._tallies, self._step_in_epoch):
                if tensor is not None:
                    tensor.zero_()
            for start, stop in self._bounds:
                self._take_step(stop - start)
            if epoch < self._settings.epochs:
                self._drawn = self._draw(epoch + 1)
            assert self._tallies is not None
            weights = self._objective.weights(self._tallies, self._count)
            losses = mean_over(self._loss_sums, weights).tolist()  # the epoch's one synchronization
            scores = self._scores(self._tallies.cpu(), self._count)
        return [
            RunningMeans(values={"loss": loss, **own}, learning_rate=rate, diverged_step=step)
            for loss, own, rate, step in zip(
                losses, scores, self._rates_at(epoch), self._diverged_steps(losses, epoch), strict=True
            )
        ]

    def evaluate(self, split: Split, *, keeps_outputs: bool = False) -> list[Evaluation]:
        if keeps_outputs and not self._objective.keeps_outputs:
            return self._evaluated_keeping(split)
        if split not in self._evaluations:
            self._evaluations[split] = Replayed(
                partial(self._evaluated, split),
                # What is evaluated once, at the end, is not worth a graph.
                self._captures if split in ("sample", "heldout") else None,
                warm_ups=1,
            )
        if split in ("test", "train"):
            self._let_go_of_graphs()
        with self._on_stream(), lent(self._averages):
            losses, tallies, outputs = self._evaluations[split]()
            kept = outputs.clone() if outputs is not None else None
            return self._told(losses, tallies, kept, self._count_of(split))

    def _told(self, losses: Tensor, tallies: Tensor, outputs: Tensor | None, count: int) -> list[Evaluation]:
        tallies = tallies.clone()
        scores = self._scores(tallies.cpu(), count)
        return [
            Evaluation(
                loss=loss, scores=own, tally=tallies[member], outputs=outputs[member] if outputs is not None else None
            )
            for member, (loss, own) in enumerate(zip(losses.tolist(), scores, strict=True))
        ]

    def _evaluated_keeping(self, split: Split) -> list[Evaluation]:
        """Evaluate without a graph, with the outputs on the CPU."""
        with self._on_stream(), lent(self._averages):
            kept: list[Tensor] = []
            losses, tallies, _ = self._evaluated(split, kept)
            return self._told(losses, tallies, torch.cat(kept, dim=1), self._count_of(split))

    def _scores(self, tallies: Tensor, count: int) -> list[dict[str, float]]:
        found = zip(tallies, self._members, strict=True)
        return [self._objective.scores(own, count, member.data.scale) for own, member in found]

    def _count_of(self, split: Split) -> int:
        images, _, indices = split_of(self._data, split)
        return len(images if indices is None else indices)

    def state(self, member: int) -> dict[str, Tensor]:
        if self._averages is None:
            return self._models.state(member)
        self._wait()
        with self._averages.lent():
            return {name: tensor.clone() for name, tensor in self._models.state(member).items()}

    def settle(self) -> None:
        self._wait()
        if self._averages is not None:
            self._averages.settle()
            self._averages = None

    def snapshot(self, member: int) -> StepsSnapshot:
        self._wait()
        parameters, position = self._optimized(member)
        return StepsSnapshot(
            tensors=copied(self._models.tensors(member)),
            optimizer=optimizer_state(self._optimizer, parameters, position=position),
            averages=self._averages.copies(*self._averaged(member)) if self._averages is not None else [],
        )

    def restore(self, snapshots: Sequence[StepsSnapshot], epoch: int) -> None:
        for member, kept in enumerate(snapshots):
            put_back(self._models.tensors(member), kept.tensors)
        self._make_optimizer_state(snapshots)
        for member, kept in enumerate(snapshots):
            parameters, position = self._optimized(member)
            put_back_optimizer(self._optimizer, parameters, kept.optimizer, position=position)
            if self._averages is not None:
                self._averages.put_back(kept.averages, *self._averaged(member))
        self._step_number.fill_(epoch * len(self._bounds))
        if epoch < self._settings.epochs:
            self._drawn = self._draw(epoch + 1)

    def seconds_per_step(self, steps: int) -> float:
        """Return how long a whole batch's step takes, warmed up; the models are trained on their first batch by it."""
        size = self._bounds[0][1] - self._bounds[0][0]
        with self._on_stream():
            for step in range(WARM_UP_STEPS + 1 + steps):
                if step == WARM_UP_STEPS + 1:
                    self._wait()
                    begun = time.perf_counter()
                self._step_number.zero_()
                self._step_in_epoch.zero_()
                self._take_step(size)
            self._wait()
        return (time.perf_counter() - begun) / steps

    def _optimized(self, member: int) -> tuple[list[Tensor], int | None]:
        """Return what the optimizer has of a member: tensors, and its place in them where they are stacked."""
        number, group = next((n, g) for n, g in enumerate(self._groups) if g.start <= member < g.stop)
        tensors: list[Tensor] = self._optimizer.param_groups[number]["params"]
        position = member - group.start
        if self._models.is_stacked:
            return tensors, position
        each = len(tensors) // (group.stop - group.start)
        return tensors[position * each : (position + 1) * each], None

    def _averaged(self, member: int) -> tuple[slice, int | None]:
        """Return where the averages of a member are: at which places, and at which position where they are stacked."""
        if self._models.is_stacked:
            return slice(None), member
        each = len(self._models.parameters(slice(member, member + 1)))
        return slice(member * each, (member + 1) * each), None

    def _make_optimizer_state(self, snapshots: Sequence[StepsSnapshot]) -> None:
        parameters: list[Tensor] = []
        kept: OptimizerState = []
        for member, snapshot in enumerate(snapshots):
            own, position = self._optimized(member)
            if not position:  # those that are stacked stand for all members of their group
                parameters += own
                kept += snapshot.optimizer
        make_optimizer_state(self._optimizer, parameters, kept)

    def _let_go_of_graphs(self) -> None:
        """Give their memory back when training is over, to what is evaluated once, at the end."""
        if self._captures is not None:
            self._wait()
            self._steps.clear()
            self._evaluations.pop("sample", None)
            self._evaluations.pop("heldout", None)

    def _wait(self) -> None:
        if self._captures is not None:
            self._captures.stream.synchronize()

    def _prepare_optimizer(self) -> None:
        """Make an optimizer with a group for each run of members of the same numbers, and their learning rates.

        Raises:
            PathUnavailable: it cannot take the steps of all at once, or not in a graph.
        """
        check_can(
            self._settings,
            "fused" if self._models.is_stacked else "graph",
            is_stacked=self._models.is_stacked,
            is_captured=self._captures is not None,
        )
        self._groups: list[slice] = []
        settings: list[TrainingSettings] = []
        for numbers, same in itertools.groupby(self._members, key=lambda member: member.settings):
            begin = self._groups[-1].stop if self._groups else 0
            self._groups.append(slice(begin, begin + len(list(same))))
            settings.append(numbers)
        # On a CPU in double precision, which the host's own learning rate has.
        precise = torch.float32 if self._captures else torch.float64
        table = [learning_rates(own, len(self._bounds)) for own in settings]
        self._rate_table = torch.tensor(table, dtype=precise, device=self._device)  # (groups, steps)
        self._host_rates = table
        self._rates = torch.zeros(len(self._groups), 1, dtype=precise, device=self._device)
        self._optimizer = optimizer_over(
            [(self._models.parameters(group), own) for group, own in zip(self._groups, settings, strict=True)],
            rates=list(self._rates.squeeze(1)),
            is_captured=self._captures is not None,
        )
        largest = [member.settings.gradient_clipping for member in self._members]
        self._is_clipped = any(limit is not None for limit in largest)
        self._largest = largest
        self._largest_norms = torch.tensor(
            [math.inf if limit is None else limit for limit in largest], device=self._device
        )  # (S,)

    def _prepare_steps(self) -> None:
        largest = max(stop - start for start, stop in self._bounds)
        self._offsets = torch.arange(largest, device=self._device)
        self._counters = torch.zeros(2, 1, dtype=torch.int64, device=self._device)
        self._step_number, self._step_in_epoch = self._counters
        self._loss_sums = torch.zeros(len(self._members), dtype=torch.float64, device=self._device)
        self._tallies: Tensor | None = None
        self._epoch_losses = torch.zeros(len(self._bounds), len(self._members), device=self._device)
        self._steps: dict[int, Replayed[None]] = {}
        self._unwatched = WATCHED_STEPS

    def _take_step(self, size: int) -> None:
        if size not in self._steps:
            warm_ups = 1 if self._steps else WARM_UP_STEPS
            self._steps[size] = Replayed(partial(self._step, size), self._captures, warm_ups=warm_ups)
        with self._watched():
            self._steps[size]()

    def _watched(self) -> AbstractContextManager[object]:
        """Watch the first two steps: what the first one makes, the second may change."""
        self._unwatched -= 1
        if self._unwatched < 0:
            return contextlib.nullcontext()
        modules = [*self._models.modules(), *([self._loss] if isinstance(self._loss, nn.Module) else [])]
        return watching(modules, self._device, is_drawn_alone=len(self._members) == 1)

    def _step(self, size: int) -> None:
        """Take one step of every member; reads and writes tensors of this object alone."""
        places = torch.add(self._offsets[:size], self._step_in_epoch, alpha=self._settings.batch_size)
        examples = self._examples.index_select(2, places)  # (K, S, B)
        inputs = self._inputs(gather(self._data.images, examples.flatten(1), self._moves))
        targets = self._targets(gather_targets(self._data.labels, examples.flatten(1), self._moves))
        torch.index_select(self._rate_table, 1, self._step_number, out=self._rates)
        with self._algorithms():
            losses, outputs = self._models.backward(inputs, targets, self._loss, *self._weights)
        self._clip()
        self._optimizer.step()
        if self._averages is not None:
            self._averages.update()
        self._epoch_losses.index_copy_(0, self._step_in_epoch, losses.float().unsqueeze(0))
        tallies = self._objective.tally(outputs, targets)
        self._loss_sums += losses * self._objective.weights(tallies, size)
        if self._tallies is None:  # in the first step, which is no graph's
            self._tallies = torch.zeros_like(tallies)
        self._tallies += tallies
        self._counters += 1

    def _clip(self) -> None:
        if self._is_clipped and self._models.is_stacked:
            clip_stacked(self._models.parameters(slice(None)), self._largest_norms)
        elif self._is_clipped:
            for member, largest in enumerate(self._largest):
                clip_alone(self._models.parameters(slice(member, member + 1)), largest)

    def _evaluated(self, split: Split, kept: list[Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return losses (S,), tallies (S, …) and outputs (S, N, …), None where the task does not keep them.

        Where it does not, `kept` takes them part by part, on the CPU.
        """
        images, labels, _ = split_of(self._data, split)
        found = [split_of(member.data, split)[2] for member in self._members]
        whole = torch.arange(len(images), device=self._device)
        indices = torch.stack([whole if own is None else own for own in found])  # (S, N)
        if self._objective.keeps_outputs:
            with self._algorithms():
                parts = [self._models.logits(self._gathered(images, part)) for part in self._parts(indices)]
            outputs = torch.cat(parts, dim=1)
            truth = self._targets(labels[indices.flatten()])
            return self._mean_losses(outputs, truth), self._objective.tally(outputs, truth), outputs
        sums, tallies = torch.zeros_like(self._loss_sums), torch.zeros((), dtype=torch.int64, device=self._device)
        for part in self._parts(indices):
            with self._algorithms():
                outputs = self._models.logits(self._gathered(images, part))
            truth = self._targets(labels[part.flatten()])
            own = self._objective.tally(outputs, truth)
            sums += self._mean_losses(outputs, truth) * self._objective.weights(own, part.shape[1])
            tallies = tallies + own
            if kept is not None:
                kept.append(outputs.cpu())
        weights = self._objective.weights(tallies, indices.shape[1])
        return mean_over(sums, weights), tallies, None

    def _mean_losses(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Return (S,); of models that are not stacked each is computed as for a model alone, to the bit."""
        if self._models.is_stacked:
            return self._objective.mean_losses(outputs, truth)
        return torch.stack([self._objective.mean_loss(own, true) for own, true in zip(outputs, truth, strict=True)])

    def _targets(self, targets: Tensor) -> Tensor:
        """Return targets (S·B, …) as they are trained on, (S, B, …)."""
        return self._objective.prepared(targets.view(len(self._members), -1, *targets.shape[1:]), self._scales)

    def _parts(self, indices: Tensor) -> list[Tensor]:
        size = evaluated_at_once(self._device, self._settings.batch_size)
        return [indices[:, start : start + size] for start in range(0, indices.shape[1], size)]

    def _gathered(self, images: Tensor, indices: Tensor) -> Tensor:
        return self._inputs(images.index_select(0, indices.flatten()))

    def _inputs(self, images: Tensor) -> Tensor:
        """Return images (S·B, H, W, C) as a batch for each member (S, B, C, H, W); features (S·B, …) as (S, B, …)."""
        apart = images.view(len(self._members), -1, *images.shape[1:])
        if images.dtype != torch.uint8 or not self._models.is_stacked:
            mean, deviation = (own[:, None, None, None, :] for own in (self._mean, self._deviation))
            return standardize(apart, mean, deviation, layout=self._data.layout)
        return standardize_stacked(apart, self._scale, self._offset, layout=self._data.layout)

    def _draw(self, epoch: int) -> list[EpochDraw]:
        return [
            draw_epoch(
                self._count,
                augmentation=self._settings.augmentation,
                study_seed=self._study_seed,
                seed=member.seed,
                epoch=epoch,
            )
            for member in self._members
        ]

    def _on_device(self, draws: Sequence[EpochDraw]) -> Tensor:
        return epoch_examples(self._data, [member.data.train for member in self._members], draws)

    def _rates_at(self, epoch: int) -> list[float]:
        """Return each member's learning rate in the last step of an epoch."""
        last = epoch * len(self._bounds) - 1
        return [
            self._host_rates[number][last]
            for number, group in enumerate(self._groups)
            for _ in range(group.start, group.stop)
        ]

    def _diverged_steps(self, losses: Sequence[float], epoch: int) -> list[int | None]:
        return [
            None if math.isfinite(loss) else first_step_not_finite(self._epoch_losses[:, member], epoch)
            for member, loss in enumerate(losses)
        ]

    def _seed(self, epoch: int) -> None:
        seeds = [stream_seed(self._study_seed, Purpose.DROPOUT, member.seed, epoch) for member in self._members]
        torch.manual_seed(seeds[0])
        for generator, seed in zip(self._generators, seeds, strict=bool(self._generators)):
            generator.manual_seed(seed)
        if self._masks is not None:
            self._masks.seed(seeds)

    def _algorithms(self) -> AbstractContextManager[object]:
        is_timed = self._captures is not None and self._members[0].cudnn_benchmark
        return algorithms_timed() if is_timed else contextlib.nullcontext()

    def _on_stream(self) -> AbstractContextManager[object]:
        if self._captures is None:
            return contextlib.nullcontext()
        self._captures.stream.wait_stream(torch.cuda.current_stream(self._device))
        return torch.cuda.stream(self._captures.stream)
