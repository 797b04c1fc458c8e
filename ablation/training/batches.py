"""Turns a data set that lies on the device as one tensor into shuffled, augmented, standardized batches.

Shuffling and augmentation are gathers with per-sample parameters, drawn once per epoch on the CPU, so that a seed
gives the same batches on every device. Images stay channels-last from storage to the first convolution, unless the
model is one that was not written for it. Float features are shuffled and reach the model as they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ablation.streams import Purpose, stream_seed

CROP_PIXELS = 4
SHIFTS = 2 * CROP_PIXELS + 1
AUGMENTATIONS: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "flip": ("flip",),
    "crop": ("crop",),
    "crop-flip": ("crop", "flip"),
}
"""What is done to an image, by name."""
# Forward passes of the original CNN, measured on a CPU: 100 images take 0.6 of the time per image that 500 take, as
# their activations stay below what the allocator hands back to the system; the logits are the same to the bit.
CPU_EVALUATION_IMAGES = 100
GPU_EVALUATION_IMAGES = 500
TARGETS_OF_PIXELS = 3
"""Dimensions of targets that have one for each pixel: (N, H, W)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """A run's data on its device.

    `images` and `test_images` are uint8 (N, H, W, C), float32 features (N, …) or whole numbers int32 (N, …); labels are
    as the task has its targets, (N, …); `train`, `validation` and `sample` are int64 indices into `images`; `mean` and
    `deviation` are per channel (C,), in units of 0..255, and used for images alone. `layout` is that of the model and
    of its batches of images: a model that calls `view` on them needs it contiguous. `scale` is the mean and deviation
    of the training targets where these are standardized, each of the shape of one target. `test` are indices into
    `images` where a fold of these is tested on: `test_images` are `images` then, and `test_labels` the fold's own.
    """

    images: Tensor
    labels: Tensor
    train: Tensor
    validation: Tensor | None
    sample: Tensor
    test_images: Tensor
    test_labels: Tensor
    mean: Tensor
    deviation: Tensor
    layout: torch.memory_format = torch.channels_last
    scale: tuple[Tensor, Tensor] | None = None
    test: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochDraw:
    """What is drawn for an epoch, in the order of training."""

    order: Tensor
    """int64 (N,): positions in the training split."""
    moves: Tensor | None
    """int64 (2, N): how an image's rows and its columns are moved, by their places in `Moves`; None where none are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """Where the pixels of a moved image lie in it, for each way to move its rows, and its columns; what moves in is
    reflected.

    int64 on the images' device: `rows` (9, H) for shifts of -4..4 (positions of a row's first pixel), `columns` (18, W)
    for the same shifts, and again mirrored.
    """

    rows: Tensor
    columns: Tensor


def draw_epoch(count: int, *, augmentation: str, study_seed: int, seed: int, epoch: int) -> EpochDraw:
    """Draw an epoch of `count` images on the CPU; it depends on the study's seed, the seed index and the epoch alone.

    Both parts of the augmentation are drawn whatever its kind, so that `flip` and `crop-flip` mirror the same images.
    """
    parts = AUGMENTATIONS[augmentation]
    order = torch.randperm(count, generator=_generator(Purpose.ORDER, study_seed, seed, epoch))
    if not parts:
        return EpochDraw(order=order, moves=None)
    generator = _generator(Purpose.AUGMENTATION, study_seed, seed, epoch)
    flips = torch.rand(count, generator=generator) < 0.5
    shifts = torch.randint(-CROP_PIXELS, CROP_PIXELS + 1, (count, 2), generator=generator)
    rows, columns = shifts.mT + CROP_PIXELS if "crop" in parts else torch.full((2, count), CROP_PIXELS)
    if "flip" in parts:
        columns = columns + SHIFTS * flips
    return EpochDraw(order=order, moves=torch.stack([rows, columns])[:, order])


def make_moves(images: Tensor, augmentation: str) -> Moves | None:
    """Return how images (N, H, W, C) are moved; None where they are not."""
    if not AUGMENTATIONS[augmentation]:
        return None
    _, height, width, _ = images.shape
    shifts = torch.arange(-CROP_PIXELS, CROP_PIXELS + 1, device=images.device).unsqueeze(1)
    rows, columns = (torch.arange(size, device=images.device) for size in (height, width))
    return Moves(
        rows=_reflected(rows + shifts, height) * width,
        columns=torch.cat([_reflected(places + shifts, width) for places in (columns, columns.flip(0))]),
    )


def epoch_examples(data: TrainingData, trains: Sequence[Tensor], draws: Sequence[EpochDraw]) -> Tensor:
    """Return an epoch of S runs on the device, as `gather` takes it: int64 (K, S, N), in the order of training.

    `trains` are the runs' training splits. The K rows are the position of an image in the data, or of its first pixel
    where images are moved; its target where that is a class, else its position again; then how its rows and its columns
    are moved.
    """
    device = data.images.device
    orders = torch.stack([draw.order for draw in draws]).to(device)
    indices = torch.stack([train[order] for train, order in zip(trains, orders, strict=True)])
    found = torch.stack([indices, data.labels[indices] if _are_classes(data.labels) else indices])
    moves = [draw.moves for draw in draws if draw.moves is not None]
    if not moves:
        return found
    found[0] *= data.images[0, ..., 0].numel()
    return torch.cat([found, torch.stack(moves, dim=1).to(device)])


def training_batches(
    data: TrainingData, *, batch_size: int, augmentation: str, study_seed: int, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield an epoch's batches: standardized images (B, C, H, W), or features (B, …), and their targets in the data.

    The last batch is what is left over; a single left-over image joins the batch before it, as batch normalization
    cannot train on one.
    """
    count = len(data.train)
    draw = draw_epoch(count, augmentation=augmentation, study_seed=study_seed, seed=seed, epoch=epoch)
    examples = epoch_examples(data, [data.train], [draw])[:, 0]
    moves = make_moves(data.images, augmentation)
    for start, stop in batch_bounds(count, batch_size):
        images = gather(data.images, examples[:, start:stop], moves)
        yield (
            standardize(images, data.mean, data.deviation, layout=data.layout),
            gather_targets(data.labels, examples[:, start:stop], moves),
        )


def evaluation_batches(images: Tensor, indices: Tensor | None, data: TrainingData) -> Iterator[Tensor]:
    """Yield standardized images (B, C, H, W), or features, in the order of `indices`, or of the images themselves."""
    batch_size = CPU_EVALUATION_IMAGES if images.device.type == "cpu" else GPU_EVALUATION_IMAGES
    count = len(images) if indices is None else len(indices)
    for start in range(0, count, batch_size):
        stop = min(start + batch_size, count)
        if indices is not None:
            batch = images.index_select(0, indices[start:stop])
        else:
            # A copy, as the model may change features in place, and the data may be mapped into memory read-only.
            batch = images[start:stop] if images.dtype == torch.uint8 else images[start:stop].clone()
        yield standardize(batch, data.mean, data.deviation, layout=data.layout)


def batch_bounds(count: int, batch_size: int) -> list[tuple[int, int]]:
    """Return the (start, stop) of each batch; a last batch of one is joined to the one before."""
    bounds = [(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    if len(bounds) > 1 and bounds[-1][1] - bounds[-1][0] == 1:
        bounds[-2:] = [(bounds[-2][0], count)]
    return bounds


def gather(images: Tensor, examples: Tensor, moves: Moves | None) -> Tensor:
    """Return uint8 (B, H, W, C) images of examples (K, B), moved as they say, or features, which cannot be."""
    if moves is None:
        return images.index_select(0, examples[0])
    rows = moves.rows.index_select(0, examples[2]) + examples[0].unsqueeze(1)
    columns = moves.columns.index_select(0, examples[3])
    pixels = rows.unsqueeze(2) + columns.unsqueeze(1)  # (B, H, W)
    # One index per pixel into the flattened images is gathered four times as fast as one per image, row and column.
    return images.flatten(0, 2).index_select(0, pixels.flatten()).view(*pixels.shape, -1)


def gather_targets(targets: Tensor, examples: Tensor, moves: Moves | None) -> Tensor:
    """Return the targets (B, …) of examples (K, B); those that have a pixel each are moved as their images are."""
    if _are_classes(targets):
        return examples[1]
    if moves is None or targets.dim() != TARGETS_OF_PIXELS:
        return targets.index_select(0, examples[1])
    return gather(targets.unsqueeze(-1), examples, moves).squeeze(-1)


def _are_classes(targets: Tensor) -> bool:
    """Whether each target is one number of a type that examples may hold: a step then gathers none, a kernel less."""
    return targets.dim() == 1 and targets.dtype == torch.int64


def standardize(images: Tensor, mean: Tensor, deviation: Tensor, *, layout: torch.memory_format) -> Tensor:
    """Return uint8 (…, H, W, C) images as floats (…, C, H, W), features as they are, whole numbers as int64.

    `mean` and `deviation` broadcast against the images. The floats are channels-last in memory, as the images are,
    unless the layout is contiguous.
    """
    if images.dtype != torch.uint8:
        return images if images.is_floating_point() else images.long()
    floats = torch.sub(images, mean).div_(deviation).movedim(-1, -3)
    return floats if layout == torch.channels_last else floats.contiguous()


def standardize_stacked(images: Tensor, scale: Tensor, offset: Tensor, *, layout: torch.memory_format) -> Tensor:
    """Return uint8 (S, B, H, W, C) images as floats (S, B, C, H, W) in one pass, whose channels lie beside each other.

    A float is image × scale + offset, both (S, C); within rounding it is what `standardize` returns. In memory they are
    (B, H, W, S, C), as one convolution for all of S takes them, unless the layout is contiguous.
    """
    beside = images.movedim(0, 3)
    floats = torch.addcmul(offset, beside, scale, out=torch.empty(beside.shape, device=images.device))
    apart = floats.movedim((3, 4), (0, 2))
    return apart if layout == torch.channels_last else apart.contiguous()


def _generator(purpose: Purpose, study_seed: int, *indices: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(study_seed, purpose, *indices))


# Reflected, not zero-padded as usual: one gather of indices, without a padded copy.
def _reflected(positions: Tensor, size: int) -> Tensor:
    """Fold positions outside 0..size-1 back in, the border pixel not repeated, as often as it takes."""
    period = max(2 * (size - 1), 1)
    within = positions.remainder(period)
    return torch.minimum(within, period - within)
