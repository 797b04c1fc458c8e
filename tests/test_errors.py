"""Errors say the same after the way from a worker to the coordinator."""

import errno
import pickle
from pathlib import Path

import pytest

from ablation import errors

RAISED = [
    errors.StudyFileError("a.yaml", [errors.Problem(message="is missing", path="data", line=3)]),
    errors.StudyChanged("quick", {"training.epochs": (1, 2)}),
    errors.StudyNarrowed("quick", ["depth=2/seed-4"]),
    errors.StudyUnknown("quick", tracking_uri="sqlite:///a.db", near=["quicker"], known=["quicker"]),
    errors.NameUnknown("metric", "test_acc", near=["test_accuracy"], known=["test_accuracy"], option="--metric"),
    errors.StudyLocked("quick", "process 1"),
    errors.StudyTakenOver("quick", "process 1"),
    errors.StudyRunGone("0" * 32),
    errors.LaunchUnknown("MLFLOW_RUN_ID", "0" * 32, tracking_uri="sqlite:///a.db"),
    errors.RecordRefused("depth=2/seed-4", "no such name"),
    errors.AddressInvalid("cannot be read as an address"),
    errors.StudyUnplanned("quick"),
    errors.StudyDeleted("quick", tracking_uri="sqlite:///a.db"),
    errors.StudyNowhere("quick", Path("state")),
    errors.PlanUnreadable("quick", "/mlruns/1/2/artifacts", "not a plan"),
    errors.ArtifactsUnreachable("quick", "/a/mlruns/1", "there is no /a", missing=Path("/a"), is_served=False),
    errors.ArtifactsUnusable("/a/mlruns", "Permission denied"),
    errors.StateUnavailable(Path("state"), OSError(errno.EACCES, "Permission denied", "state")),
    errors.LockUnavailable(Path("state/lock"), OSError(errno.ENOLCK, "No locks available")),
    errors.StorageForeign("postgresql://host/optuna", "5.0.0"),
    errors.NoResults("quick"),
    errors.TrackingUnavailable("http://127.0.0.1:1", "no answer"),
    errors.RunsNotRecorded("quick", 3, "no answer"),
    errors.MetricsMissing("own", "x=1/seed-0", "Traceback:\nMetricsUnfit: returned nothing"),
    errors.DiskFull(Path("state"), "No space left on device"),
    errors.StorageUnavailable("sqlite:///a.db", "locked"),
    errors.DataUnavailable("not there"),
    errors.DataInvalid(Path("data"), ["a", "b"]),
    errors.ModelInvalid("too small", path="model.depth"),
    errors.CodeInvalid("net.py:Net raised ValueError", path="model.name", traceback="Traceback:\n  a"),
    errors.ComponentInvalid("no such component", path="model.remove"),
    errors.DeviceUnavailable("cuda:9", ["cpu"]),
    errors.PrecisionUnavailable("tf32", "cpu", ["fp32", "bf16"]),
    errors.PathUnavailable("graph", "it\n waits"),
    errors.TuningFailed("quick", "depth=2"),
    errors.SettingsForeign("quick", "depth=2", ["training.loss"]),
    errors.VariantsAlike("full", "norm=absent"),
    errors.VariantFails("depth=2", "no such file"),
    errors.NoModel("quick"),
    errors.CodeChanged(["net.py:Net"]),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_an_error_says_the_same_after_pickling(error: errors.AblationError) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert (type(error), str(error), error.__dict__) == (type(copy), str(copy), copy.__dict__)


def test_every_kind_of_error_is_among_these() -> None:
    kinds = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.AblationError)
    }

    assert kinds - {errors.AblationError} == {type(error) for error in RAISED}
