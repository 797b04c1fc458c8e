"""Errors say the same after the way from a worker to the coordinator."""

import errno
import importlib
import io
import pickle
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import ablation
from ablation import errors
from ablation.executors import WorkerLost
from ablation.worker import DeviceLost

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
    errors.ArgumentInvalid("seeds", "x", "a number"),
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
    errors.NoiseUnknown("quick", "test_accuracy"),
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
    errors.SettingInvalid("no such optimizer", path="training.optimizer"),
    errors.DeviceUnavailable("cuda:9", ["cpu"]),
    errors.PrecisionUnavailable("tf32", "cpu", ["fp32", "bf16"]),
    errors.PathUnavailable("graph", "it\n waits"),
    errors.TuningFailed("quick", "depth=2"),
    errors.SettingsForeign("quick", "depth=2", ["training.loss"]),
    errors.VariantsAlike("full", "norm=absent"),
    errors.VariantFails("depth=2", "no such file"),
    errors.NoModel("quick"),
    errors.CodeChanged(["net.py:Net"]),
    errors.FigureUnknown("tree", "quick", ["forest"]),
    errors.StudyWithin(),
    errors.CodeMissing("timm", "1.0.3", None),
    errors.SchedulerMissing("scheduler.json", "there is no such file yet", 60.0),
    errors.ClusterInvalid("10.0.0.5:8786", "it is empty"),
    errors.NetworkOpen("tcp://10.0.0.5:8786"),
    errors.CertificateMissing("tls://10.0.0.5:8786", ["distributed.comm.tls.ca-file"]),
    errors.CertificateForeign("tls://10.0.0.5:8786", ["distributed.comm.tls.ca-file"]),
    errors.ExecutorUnknown("dusk", ["auto", "dask:WHERE"]),
    errors.EngineMissing("dask", "distributed"),
    errors.ModelNotKept("quick", "its runs are those of a training function"),
    errors.CodeUntrusted("quick", "net.py:Net", [Path("code")]),
    errors.OutputsNotKept("quick", "they are more than 64 MiB"),
    errors.MetricTaken("quick", "f1"),
    errors.ObjectiveUndefined("auroc", 3),
    errors.StudiesApart(("a", "b"), ("test_accuracy", "test_loss")),
    errors.FoldsApart(("a", "b"), ["folds"]),
    errors.ValidationMissing("own", "x=1/trial-0", "val_rmse", "Traceback:\nMetricsUnfit: returned nothing"),
    errors.DataIncomparable("data.features few", "it has 3 test examples", twin="data.features all"),
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


def exception_classes() -> Iterator[type[BaseException]]:
    """Yield every class of exception in the package, those of one module too."""
    for module in pkgutil.walk_packages(ablation.__path__, "ablation."):
        if module.name != "ablation.__main__":
            found = vars(importlib.import_module(module.name)).values()
            for kind in found:
                if isinstance(kind, type) and issubclass(kind, BaseException) and kind.__module__ == module.name:
                    yield kind


def test_every_exception_of_the_package_is_pickled_by_what_it_says_whatever_its_constructor_takes() -> None:
    """One that is not inherits CarriedError, or has no constructor of its own."""
    unreadable = []
    for kind in exception_classes():
        error = kind.__new__(kind, "why")  # not made by its constructor, whose arguments nobody knows here
        error.args, error.__dict__["about"] = ("why",), 7
        try:
            copy = pickle.loads(_pickled(error))
        except Exception:  # noqa: BLE001 - whatever stands in the way
            unreadable.append(kind)
        else:
            if (kind, str(error), {"about": 7}) != (type(copy), str(copy), copy.__dict__):
                unreadable.append(kind)

    assert ["Unreadable"] == [kind.__name__ for kind in unreadable]  # that of the contract, which is meant so


def _pickled(error: BaseException) -> bytes:
    """Pickle by what the error's class says: an engine that was imported has Python pickle all errors its own way."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file)
    pickler.dispatch_table = {}
    pickler.dump(error)
    return file.getvalue()


@pytest.mark.parametrize("error", [WorkerLost(-9), WorkerLost(None), DeviceLost("an assert")], ids=repr)
def test_a_lost_worker_or_device_says_the_same_after_pickling(error: Exception) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert (type(error), str(error), error.__dict__) == (type(copy), str(copy), copy.__dict__)
