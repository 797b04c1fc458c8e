"""Turns a data set that lies on the device as one tensor into shuffled, augmented, standardized batches.

Shuffling and augmentation are gathers with per-sample parameters, drawn once per epoch on the CPU, so that a seed
gives the same batches on every device. Images stay channels-last from storage to the first convolution, unless the
model is one that was not written for it. Float features are shuffled and reach the model as they are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ablation.streams import Purpose, stream_seed

CROP_PIXELS = 4
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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """A run's data on its device.

    `images` and `test_images` are uint8 (N, H, W, C) or float32 features (N, …), labels int64 (N,); `train`,
    `validation` and `sample` are int64 indices into `images`; `mean` and `deviation` are per channel (C,), in units of
    0..255, and not used for features. `layout` is that of the model and of its batches of images: a model that calls
    `view` on them needs it contiguous.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochDraw:
    """What is drawn for an epoch, in the order of training; None where that part is off."""

    order: Tensor
    """int64 (N,): positions in the training split."""
    flips: Tensor | None
    """bool (N,): mirror this image."""
    shifts: Tensor | None
    """int64 (N, 2): rows and columns, each in -4..4, to move this image by; what moves in is reflected."""


def draw_epoch(count: int, *, augmentation: str, study_seed: int, seed: int, epoch: int) -> EpochDraw:
    """Draw an epoch of `count` images on the CPU; it depends on the study's seed, the seed index and the epoch alone.

    Both parts of the augmentation are drawn whatever its kind, so that `flip` and `crop-flip` mirror the same images.
    """
    parts = AUGMENTATIONS[augmentation]
    order = torch.randperm(count, generator=_generator(Purpose.ORDER, study_seed, seed, epoch))
    generator = _generator(Purpose.AUGMENTATION, study_seed, seed, epoch)
    flips = torch.rand(count, generator=generator) < 0.5
    shifts = torch.randint(-CROP_PIXELS, CROP_PIXELS + 1, (count, 2), generator=generator)
    return EpochDraw(
        order=order,
        flips=flips[order] if "flip" in parts else None,
        shifts=shifts[order] if "crop" in parts else None,
    )


def training_batches(
    data: TrainingData, *, batch_size: int, augmentation: str, study_seed: int, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield an epoch's batches: standardized images (B, C, H, W), or features (B, …), and labels (B,).

    The last batch is what is left over; a single left-over image joins the batch before it, as batch normalization
    cannot train on one.
    """
    count, device = len(data.train), data.images.device
    draw = draw_epoch(count, augmentation=augmentation, study_seed=study_seed, seed=seed, epoch=epoch)
    indices = data.train[draw.order.to(device)]
    flips, shifts = (None if drawn is None else drawn.to(device) for drawn in (draw.flips, draw.shifts))
    for start, stop in batch_bounds(count, batch_size):
        of_batch = slice(start, stop)
        images = gather(
            data.images,
            indices[of_batch],
            flips=None if flips is None else flips[of_batch],
            shifts=None if shifts is None else shifts[of_batch],
        )
        yield standardize(images, data.mean, data.deviation, layout=data.layout), data.labels[indices[of_batch]]


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
            batch = images[start:stop].clone() if images.is_floating_point() else images[start:stop]
        yield standardize(batch, data.mean, data.deviation, layout=data.layout)


def batch_bounds(count: int, batch_size: int) -> list[tuple[int, int]]:
    """Return the (start, stop) of each batch; a last batch of one is joined to the one before."""
    bounds = [(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    if len(bounds) > 1 and bounds[-1][1] - bounds[-1][0] == 1:
        bounds[-2:] = [(bounds[-2][0], count)]
    return bounds


def gather(images: Tensor, indices: Tensor, *, flips: Tensor | None, shifts: Tensor | None) -> Tensor:
    """Return uint8 (B, H, W, C) images, each moved and mirrored as drawn, or features, which cannot be."""
    if flips is None and shifts is None:
        return images.index_select(0, indices)
    _, height, width, channels = images.shape
    rows = torch.arange(height, device=images.device).expand(len(indices), height)
    columns = torch.arange(width, device=images.device).expand(len(indices), width)
    if flips is not None:
        columns = torch.where(flips.unsqueeze(1), width - 1 - columns, columns)
    if shifts is not None:
        rows = _reflected(rows + shifts[:, :1], height)
        columns = _reflected(columns + shifts[:, 1:], width)
    pixels = (indices[:, None] * height + rows)[:, :, None] * width + columns[:, None, :]  # (B, H, W)
    # One index per pixel into the flattened images is gathered four times as fast as one per image, row and column.
    return images.flatten(0, 2).index_select(0, pixels.flatten()).view(len(indices), height, width, channels)


def standardize(images: Tensor, mean: Tensor, deviation: Tensor, *, layout: torch.memory_format) -> Tensor:
    """Return uint8 (…, H, W, C) images as floats (…, C, H, W), or features as they are.

    `mean` and `deviation` broadcast against the images. The floats are channels-last in memory, as the images are,
    unless the layout is contiguous.
    """
    if images.is_floating_point():
        return images
    floats = images.float().sub_(mean).div_(deviation).movedim(-1, -3)
    return floats if layout == torch.channels_last else floats.contiguous()


def _generator(purpose: Purpose, study_seed: int, *indices: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(study_seed, purpose, *indices))


def _reflected(positions: Tensor, size: int) -> Tensor:
    """Fold positions outside 0..size-1 back in, the border pixel not repeated, as often as it takes."""
    period = max(2 * (size - 1), 1)
    within = positions.remainder(period)
    return torch.minimum(within, period - within)
