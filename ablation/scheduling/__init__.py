"""Schedules with Optuna: the compared runs as fixed trials, and each variant's tuning as a study of its own."""

from ablation.scheduling.inspection import storage_found
from ablation.scheduling.runs import Schedule, open_schedule
from ablation.scheduling.storage import check_storage, default_storage, forget_study
from ablation.scheduling.trials import Suggestion, TuningSchedule, open_tuning

__all__ = [
    "Schedule",
    "Suggestion",
    "TuningSchedule",
    "check_storage",
    "default_storage",
    "forget_study",
    "open_schedule",
    "open_tuning",
    "storage_found",
]
