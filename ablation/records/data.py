"""What is known of a data set: before it is read, and once it is prepared."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DataShape:
    """What a model needs to know of a data set before any of it is read: image size and class names.

    `features` is the shape of one input of a data set of floating features, whose image size is 0; empty for images.
    """

    channels: int
    height: int
    width: int
    classes: tuple[str, ...]
    features: tuple[int, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input as the model gets it, without the batch."""
        return self.features or (self.channels, self.height, self.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOutline:
    """What planning needs to know of a data set that is not prepared yet; `notes` say how it is read."""

    shape: DataShape
    train_images: int
    test_images: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What is recorded of a prepared data set: its name, the SHA-256 of its content, shape and sizes.

    `notes` say in sentences how its files were read, and which were not.
    """

    name: str
    digest: str
    shape: DataShape
    train_images: int
    test_images: int
    largest_class_share: float
    """Share of the test images that the most frequent class has: the accuracy of always answering it."""
    notes: tuple[str, ...] = ()
