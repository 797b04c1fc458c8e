"""Writes what a finished run leaves for MLflow into its folder."""

import csv
import importlib.util
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ablation.records import (
    EVALUATION_FILE,
    MODEL_FILE,
    Epoch,
    Outcome,
    PlannedRun,
    RunEvaluation,
    Settings,
    TaskName,
    epoch_metrics,
    output_file,
)
from ablation.storage.run_folder import RunFolder
from ablation.training import TrainingResult


def write_configuration(folder: RunFolder, planned: PlannedRun, settings: Settings) -> None:
    folder.write_json("configuration.json", {"identity": planned.identity, **settings.plain(), "seed": planned.seed})


def write_curves(folder: RunFolder, epochs: Sequence[Epoch], *, heldout_split: str) -> None:
    """Write a row per epoch; a column that an epoch has no value in stays empty there.

    A metric that a training function calls `epoch` too has none: its curve is in the tracker's history.
    """
    rows = [{**epoch_metrics(epoch, heldout_split=heldout_split), "epoch": epoch.epoch} for epoch in epochs]
    names = list(dict.fromkeys(("epoch", *(name for row in rows for name in row))))
    if rows:
        text = _csv(names, [[row.get(name, "") for name in names] for row in rows])
        (folder.artifacts / "curves.csv").write_text(text, encoding="utf-8")


def write_evaluation(
    folder: RunFolder, planned: PlannedRun, trained: TrainingResult, *, classes: tuple[str, ...], task: TaskName
) -> tuple[str, ...]:
    """Write confusion matrices, answers, outputs and the model, nothing of a diverged run; say what is left out."""
    if trained.outcome is Outcome.DIVERGED:
        return ()
    confusion = {split: counts.tolist() for split, counts in trained.confusion.items()}
    answers = trained.test_correct.tolist() if trained.test_correct is not None else []
    evaluation = RunEvaluation(
        confusion=confusion,
        test_correct="".join("01"[is_correct] for is_correct in answers),
        constant_share=trained.constant_share,
        details=trained.details,
    )
    folder.write_json(EVALUATION_FILE, evaluation.to_json())
    for split, rows in confusion.items():
        named = [[name, *row] for name, row in zip(classes, rows, strict=True)]
        (folder.artifacts / f"confusion_{split}.csv").write_text(
            _csv(["true \\ predicted", *classes], named), encoding="utf-8"
        )
    if trained.test_outputs is not None:
        file, name = output_file(task)
        arrays: dict[str, Any] = {name: trained.test_outputs, "targets": trained.test_targets}
        np.savez_compressed(folder.artifacts / file, **arrays)
    torch.save(dict(trained.state), folder.artifacts / MODEL_FILE)
    return (*trained.left_out, *_draw_confusion(folder, planned, confusion, classes))


def _draw_confusion(
    folder: RunFolder, planned: PlannedRun, confusion: Mapping[str, list[list[int]]], classes: tuple[str, ...]
) -> tuple[str, ...]:
    """Draw the confusion matrices; a machine that only trains need not have what draws."""
    if importlib.util.find_spec("matplotlib") is None:
        pictures = " and ".join(f"confusion_{split}.png" for split in confusion)
        return (f"{pictures} are left out: matplotlib is not installed where the run was trained",)
    from ablation.drawing import write_confusion

    for split, rows in confusion.items():
        title = f"{planned.name} on the {split} split"
        write_confusion(folder.artifacts / f"confusion_{split}.png", rows, classes, title=title)
    return ()


def _csv(header: list[str], rows: list[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *rows])
    return text.getvalue()
