"""What is known of a data set: before it is read, once it is prepared, and beside that of a study's baseline."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from ablation.records.tasks import IGNORED, TaskName

InputNoun = Literal["images", "sequences", "examples"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataShape:
    """What a model needs to know of a data set before any of it is read: image size and class names.

    `features` is the shape of one input that is no image, whose image size is 0; empty for images. `vocabulary` is how
    many values whole numbers among the inputs may have, 0 where inputs are images or floating numbers. `classes` are
    those of the targets (of multilabel: the labels), none of a regression; `target_shape` is the shape of one target,
    `ignore_index` the target that counts for nothing.
    """

    channels: int
    height: int
    width: int
    classes: tuple[str, ...]
    features: tuple[int, ...] = ()
    task: TaskName = "classification"
    target_shape: tuple[int, ...] = ()
    vocabulary: int = 0
    ignore_index: int = IGNORED

    def plain(self) -> dict[str, Any]:
        """Return it as records keep it: what came after the first version stands there only where it is used."""
        usual = {each.name: each.default for each in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for each in fields(self)
            if (value := getattr(self, name := each.name)) != usual[name] or name not in _LATER
        }

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input as the model gets it, without the batch."""
        return self.features or (self.channels, self.height, self.width)

    @property
    def inputs(self) -> InputNoun:
        """What its inputs are called."""
        if self.task == "tokens":
            return "sequences"
        return "examples" if self.features else "images"

    @property
    def outputs(self) -> int:
        """How many numbers a model gives for one input, or for one position of it: one per class, label or target."""
        return self.output_shape[0] if self.task == "segmentation" else self.output_shape[-1]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of what a model gives for one input, without the batch."""
        return _OUTPUT_SHAPES[self.task](self)


_LATER = ("task", "target_shape", "vocabulary", "ignore_index")
_OUTPUT_SHAPES: Mapping[TaskName, Callable[[DataShape], tuple[int, ...]]] = {
    "classification": lambda shape: (len(shape.classes),),
    "regression": lambda shape: shape.target_shape or (1,),
    "multilabel": lambda shape: (len(shape.classes),),
    "tokens": lambda shape: (*shape.target_shape, len(shape.classes)),
    "segmentation": lambda shape: (len(shape.classes), *shape.target_shape),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOutline:
    """What planning needs to know of a data set that is not prepared yet; `notes` say how it is read."""

    shape: DataShape
    train_images: int
    test_images: int
    notes: tuple[str, ...] = ()
    train_targets: str = ""
    """The digest of its training targets, in their order; empty where they were not read."""
    test_targets: str = ""
    train_groups: str = ""
    """The digest of the groups of its training examples; empty where they are in none or were not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What is recorded of a prepared data set: its name, the SHA-256 of its content, shape and sizes.

    `notes` say in sentences how its files were read, and which were not. `fold_sizes` are how many examples each
    replicate is trained and tested on where folds take the place of a test split, of which there are no images then.
    """

    name: str
    digest: str
    shape: DataShape
    train_images: int
    test_images: int
    largest_class_share: float
    """Share of the test targets that the most frequent class has: the accuracy of always answering it; 0 where there
    are no classes."""
    notes: tuple[str, ...] = ()
    fold_sizes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherData:
    """A data set that these variants, by name, are trained and tested on in the place of the baseline's.

    `name` says what is other in it, such as `data.features few`.
    `remarks` say in sentences what the difference to the baseline's data means for what is compared.
    """

    name: str
    facts: DataFacts
    variants: tuple[str, ...]
    remarks: tuple[str, ...] = ()
