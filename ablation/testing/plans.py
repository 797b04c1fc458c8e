"""Makes a small plan without a data set and without a model: what a tracker is tried with."""

from ablation.records import DataFacts, DataShape, ModelSummary, Plan
from ablation.study import parse_study
from ablation.study.identity import locked_hash

CLASSES = ("zero", "one", "two", "three")
TEST_IMAGES = 360
STUDY = """
name: {name}
data: {{name: digits, validation: none}}
model: {{name: cnn}}
training: {{epochs: 2}}
factors:
  model.depth: [2, 3]
  model.normalization: [none, batch]
seeds: {seeds}
"""


def make_plan(*, name: str = "quick", seeds: int = 2) -> Plan:
    """Return the plan of a factorial study of four variants, on a data set of four classes."""
    study = parse_study(STUDY.format(name=name, seeds=seeds).encode(), source="study.yaml")
    data = DataFacts(
        name="digits",
        digest="0" * 64,
        shape=DataShape(channels=1, height=8, width=8, classes=CLASSES),
        train_images=1437,
        test_images=TEST_IMAGES,
        largest_class_share=0.28,
    )
    locked = study.locked()
    return Plan(
        study=study.spec.document(),
        variants=study.variants,
        summaries={variant.name: ModelSummary(parameters=10, flops=400, layers=()) for variant in study.variants},
        runs=study.runs(data_digest=data.digest),
        data=data,
        locked=locked,
        locked_hash=locked_hash(locked),
    )
