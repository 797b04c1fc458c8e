"""What the engine computes for each task: losses, scores and measures; one module per task.

Where an example has one answer, a split's outputs are kept and measured at once; where it has many, they are counted
batch by batch.
"""

from collections.abc import Callable, Mapping

from ablation.records import TASKS, DataShape, TaskName
from ablation.training.tasks.classification import Classification
from ablation.training.tasks.interface import Measures, Objective, Scale, Whole, mean_over
from ablation.training.tasks.multilabel import Multilabel
from ablation.training.tasks.regression import Regression
from ablation.training.tasks.segmentation import Segmentation
from ablation.training.tasks.tokens import Tokens

__all__ = ["CLASSIFICATION", "OBJECTIVES", "Measures", "Objective", "Scale", "Whole", "make_objective", "mean_over"]

CLASSIFICATION: Objective = Classification()
OBJECTIVES: Mapping[TaskName, Callable[[DataShape, str], Objective]] = {
    "classification": lambda _shape, _loss: CLASSIFICATION,
    "regression": lambda _, loss: Regression(trained_on=loss),
    "multilabel": lambda shape, _: Multilabel(classes=shape.classes),
    "tokens": lambda shape, _: Tokens(classes=shape.classes, ignore_index=shape.ignore_index),
    "segmentation": lambda shape, _: Segmentation(classes=shape.classes, ignore_index=shape.ignore_index),
}


def make_objective(shape: DataShape, loss: str = "") -> Objective:
    """Return what a data set's task is measured by and trains on: a loss of its own by name, or its usual one."""
    losses = TASKS[shape.task].losses
    return OBJECTIVES[shape.task](shape, loss if loss in losses else losses[0])
