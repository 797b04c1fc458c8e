"""Trains runs: compared ones whole, tuning's up to where they are stopped; tries variants and estimates their cost."""

from ablation.worker.devices import check_device, device_remarks, device_text, resolve_devices, why_no_gpu
from ablation.worker.estimate import estimate_seconds
from ablation.worker.failures import DeviceLost
from ablation.worker.own_metrics import make_metrics, try_metrics
from ablation.worker.paths import Fusing, alike
from ablation.worker.run import Job, run_jobs
from ablation.worker.trying import needs_trying, try_variant
from ablation.worker.tuning_runs import TuningJob, is_whole, objective_curve, run_tuning_job, trial_value

__all__ = [
    "DeviceLost",
    "Fusing",
    "Job",
    "TuningJob",
    "alike",
    "check_device",
    "device_remarks",
    "device_text",
    "estimate_seconds",
    "is_whole",
    "make_metrics",
    "needs_trying",
    "objective_curve",
    "resolve_devices",
    "run_jobs",
    "run_tuning_job",
    "trial_value",
    "try_metrics",
    "try_variant",
    "why_no_gpu",
]
