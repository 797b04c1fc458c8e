"""The same training by PyTorch Lightning's Trainer, with its extras off; only where `lightning` is installed."""

import logging
import time
import warnings
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.case import EXTRA_BATCHES, LEARNING_RATE, TrainingCase
from benchmarks.loader_loop import make_loader
from benchmarks.plain_model import plain_model
from benchmarks.turns import Rates


class Classifier(lightning.LightningModule):
    """The plain model, with the training step, the metrics and the optimizer that Lightning asks for."""

    def __init__(self, case: TrainingCase) -> None:
        super().__init__()
        self.model = plain_model(case.model, case.shape)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, labels = batch
        logits = self.model(images)
        loss = functional.cross_entropy(logits, labels)
        accuracy = (logits.argmax(1) == labels).float().mean()
        self.log_dict({"loss": loss, "accuracy": accuracy}, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=LEARNING_RATE)


class Moments(lightning.Callback):
    """Notes when each batch ended; a GPU is waited for at the two that a turn is timed by."""

    def __init__(self, timed: tuple[int, int]) -> None:
        self.timed = timed
        self.moments: list[float] = []

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        del trainer, outputs, batch
        if batch_idx in self.timed:
            if module.device.type == "cuda":
                torch.cuda.synchronize(module.device)
            self.moments.append(time.perf_counter())


def trainer_fit(case: TrainingCase, *, turns: int) -> Rates:
    """Fit once a turn; timed from and to full queues of the loader, so that no start is counted."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")  # its advice on workers
    module, loader = Classifier(case), make_loader(case)
    first = EXTRA_BATCHES // 2 - 1
    for _ in range(turns):
        watch = Moments((first, first + case.steps))
        trainer = lightning.Trainer(
            accelerator="gpu" if case.device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=1,
            limit_train_batches=case.steps + EXTRA_BATCHES,
            callbacks=[watch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, loader)
        begun, ended = watch.moments
        yield case.images_per_turn / (ended - begun)
