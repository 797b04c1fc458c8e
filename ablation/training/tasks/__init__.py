"""What the engine computes for each task: losses, scores and measures; one module per task.

Where an example has one answer, a split's outputs are kept and measured at once; where it has many, they are counted
batch by batch.
"""

from collections.abc import Callable, Mapping

from ablation.records import DataShape, TaskName
from ablation.training.tasks.classification import Classification
from ablation.training.tasks.interface import Measures, Objective, Scale, Whole
from ablation.training.tasks.multilabel import Multilabel
from ablation.training.tasks.regression import Regression
from ablation.training.tasks.segmentation import Segmentation
from ablation.training.tasks.tokens import Tokens

__all__ = ["CLASSIFICATION", "OBJECTIVES", "Measures", "Objective", "Scale", "Whole", "make_objective"]

CLASSIFICATION: Objective = Classification()
OBJECTIVES: Mapping[TaskName, Callable[[DataShape], Objective]] = {
    "classification": lambda _: CLASSIFICATION,
    "regression": lambda _: Regression(),
    "multilabel": lambda shape: Multilabel(classes=shape.classes),
    "tokens": lambda shape: Tokens(classes=shape.classes, ignore_index=shape.ignore_index),
    "segmentation": lambda shape: Segmentation(classes=shape.classes, ignore_index=shape.ignore_index),
}


def make_objective(shape: DataShape) -> Objective:
    """Return what a data set's task trains on and is measured by."""
    return OBJECTIVES[shape.task](shape)
