"""What a user can do wrong, one class per mistake: said without a traceback, with what to do about it."""

import errno
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ablation.commands import commands

_LONGEST_NAME = 100
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})

_TOO_MANY_FILES = frozenset({errno.EMFILE, errno.ENFILE})


class CarriedError(Exception):
    """An error that a worker's process hands to the coordinator's, whatever its constructor takes."""

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle what the error says, not how it was made."""
        return _said_again, (type(self), self.args, self.__dict__)


class AblationError(CarriedError):
    """A mistake or a missing thing that the user can put right; the command line prints it and exits with 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One error in a study file: what is wrong, at which path in the file, on which line (1-based)."""

    message: str
    path: str = ""
    line: int | None = None

    def __str__(self) -> str:
        where = f" @ {self.path}" if self.path else ""
        return f"{self.message}{where}" + (f" (line {self.line})" if self.line is not None else "")


class StudyFileError(AblationError):
    """A study file with one or more problems, all of them listed."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
        super().__init__("\n".join([f"{source} has {count}:", *(f"  {problem}" for problem in problems)]))


class StudyChanged(AblationError):
    """A study file whose fixed part differs from the one that its finished runs were trained with."""

    def __init__(self, name: str, differences: Mapping[str, tuple[object, object]]) -> None:
        lines = [f"  {path}: {before!r} -> {now!r}" for path, (before, now) in sorted(differences.items())]
        is_folded = any(path.startswith("replicates") for path in differences)
        super().__init__(
            f"study {name!r} was begun with other settings; its baseline, data, training, code and metric are fixed:\n"
            + "\n".join(lines)
            + ("\nFolds do not grow: another number of them divides the examples anew." if is_folded else "")
            + "\nUndo the change, or give the changed study a name of its own (--name NEW)."
        )


class StudyNarrowed(AblationError):
    """A study file that leaves out runs which the study already has: a choice made after results could be seen."""

    def __init__(self, name: str, runs: Sequence[str]) -> None:
        shown = ", ".join(runs[:3]) + (f" and {len(runs) - 3} more" if len(runs) > 3 else "")
        super().__init__(
            f"study {name!r} has results: its factors and levels may only grow, and seeds that have run stay; this "
            f"leaves out {shown}. Put them back, or give the smaller study a name of its own (--name NEW)."
        )


class StudyUnknown(AblationError):
    """No study of that name is recorded in MLflow."""

    def __init__(self, name: str, *, tracking_uri: str, near: Sequence[str], known: Sequence[str]) -> None:
        shown = [*known[:5], *([f"and {len(known) - 5} more"] if len(known) > 5 else [])]
        hint = f"; near it: {', '.join(near)}" if near else f"; it has: {', '.join(shown)}" if shown else ""
        super().__init__(
            f"MLflow at {tracking_uri} has no study {name!r}{hint}. "
            "Another store is named with --tracking-uri or MLFLOW_TRACKING_URI."
        )


class StudyDeleted(AblationError):
    """A study that lies in MLflow's trash."""

    def __init__(self, name: str, *, tracking_uri: str) -> None:
        super().__init__(
            f"study {name!r} was deleted in MLflow at {tracking_uri}: it lies in the trash until `mlflow gc` is run. "
            f"Restore it there, or begin it anew with `{commands.shown('study', 'FILE', '--fresh')}`."
        )


class StudyNowhere(AblationError):
    """There is nothing of a study that is to be deleted, neither in MLflow nor in the state folder."""

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(
            f"there is no study {name!r} to delete, neither in MLflow (--tracking-uri) nor in {folder} (--state-dir)"
        )


class StudyUnplanned(AblationError):
    """A study without a plan: its first execution ended before it was written, or it was deleted."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"study {name!r} is recorded and has no plan.json: it ended before that was written, or the file was "
            f"deleted since. `{commands.shown('study', 'FILE')}` with the study's file writes it anew."
        )


class PlanUnreadable(AblationError):
    """A study's plan that was read and is none: somebody or something changed the file."""

    def __init__(self, study: str, place: str, reason: str) -> None:
        super().__init__(
            f"study {study!r} is recorded, and its plan.json at {place} cannot be used: {reason}. Somebody changed the "
            "file, or it was damaged: put it back from a copy, or run the study under another name (--name NEW)."
        )


class ArtifactsUnreachable(AblationError):
    """A study that MLflow has, whose files are not where MLflow says that they are."""

    def __init__(self, study: str, place: str, reason: str, *, missing: Path | None, is_served: bool) -> None:
        advice = (
            f" Where the folder was moved, move it back, or put a link in its place: `ln -s NEW_PLACE {missing}`."
            if missing is not None and not is_served
            else ""
        )
        super().__init__(
            f"study {study!r} is recorded, and its plan.json cannot be read at {place}: {reason}. That is where its "
            "experiment's artifacts are kept, which MLflow's --default-artifact-root says, or a server with "
            f"--serve-artifacts; it is no matter of --tracking-uri.{advice}"
        )


class NameUnknown(AblationError):
    """A metric or variant that the study does not have."""

    def __init__(self, kind: str, name: str, *, near: Sequence[str], known: Collection[str], option: str) -> None:
        shown = [*list(known)[:5], *([f"and {len(known) - 5} more"] if len(known) > 5 else [])]
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"there are: {', '.join(shown)}"
        asked = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
        super().__init__(f"there is no {kind} {asked!r}; {hint} @ {option}")


class StudiesApart(AblationError):
    """Two studies whose variants cannot be compared: they are not judged on the same metric."""

    def __init__(self, studies: tuple[str, str], metrics: tuple[str, str]) -> None:
        super().__init__(
            f"variants of two studies are compared where both are judged on the same metric: {studies[0]!r} is on "
            f"{metrics[0]}, {studies[1]!r} on {metrics[1]} @ compare"
        )


class FoldsApart(AblationError):
    """Two studies, one of folds at least, whose replicates are no pairs: there is no interval for that."""

    def __init__(self, studies: tuple[str, str], differs: Sequence[str]) -> None:
        super().__init__(
            f"variants of {studies[0]!r} and {studies[1]!r} cannot be compared: folds are compared in pairs alone, and "
            f"these are none, as the studies differ in {'; '.join(differs)}. Give both the same folds, data and "
            "study_seed @ compare"
        )


class FigureUnknown(AblationError):
    """A figure that the report of a study does not have."""

    def __init__(self, name: str, study: str, known: Collection[str]) -> None:
        super().__init__(f"the report of study {study!r} has no figure {name!r}; it has: {', '.join(known)}")


class PrecisionUnavailable(AblationError):
    """A precision that the device does not compute in."""

    def __init__(self, precision: str, device: str, available: Collection[str]) -> None:
        super().__init__(
            f"{device} does not compute in {precision}; it does in {', '.join(available)} @ training.precision"
        )


class TuningFailed(AblationError):
    """No trial of a variant's tuning has a result, so there are no settings to compare it with."""

    def __init__(self, study: str, variant: str) -> None:
        super().__init__(
            f"no trial of tuning variant {variant} of study {study!r} has a result: each diverged, failed or was "
            "stopped. Their errors are in MLflow, under the study's tuning. Change the spaces @ tune, and give the "
            "changed study a name of its own (--name NEW)."
        )


class SettingsForeign(AblationError):
    """Tuned settings on record that the study could not have found: somebody else wrote them."""

    def __init__(self, study: str, variant: str, paths: Sequence[str]) -> None:
        super().__init__(
            f"the tuned settings on record of variant {variant} of study {study!r} are not what its tuning could have "
            f"found: {', '.join(map(repr, paths[:5]))} is not tuned, or has a value outside its space @ tune. Somebody "
            "changed the study's plan.json in MLflow; tune it anew under another name (--name NEW)."
        )


class VariantsAlike(AblationError):
    """Two variants whose models came out the same: what is removed or replaced in one makes no difference."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(
            f"variants {first} and {second} have the same model: the patterns of their parts name the same modules. "
            "Look at `ablation components FILE` for the names @ factors"
        )


class VariantFails(AblationError):
    """A variant that cannot take one training step, found before anything is trained."""

    def __init__(self, variant: str, error: str) -> None:
        self.variant = variant
        super().__init__(
            f"variant {variant} cannot be trained; one batch of it was tried on the CPU:\n{error.rstrip()}"
        )


class StudyLocked(AblationError):
    """Another process is running the study."""

    def __init__(self, name: str, holder: str) -> None:
        super().__init__(
            f"study {name!r} is being run by {holder}. Watch it with `{commands.shown('status', name)}`, or wait for "
            "it to end."
        )


class StudyTakenOver(StudyLocked):
    """Another process runs the study that this one ran: it was suspended for long, or cut off from MLflow."""

    def __init__(self, name: str, holder: str) -> None:
        AblationError.__init__(
            self,
            f"study {name!r} was taken over by {holder} while this process said nothing: it was suspended, or could "
            "not reach MLflow. This process has stopped and records nothing more. What it trained is in its state "
            f"folder: `{commands.shown('sync', name)}` records what is missing, once nobody runs the study.",
        )


class StudyRunGone(AblationError):
    """The MLflow run that stands for a study was deleted."""

    def __init__(self, run_id: str) -> None:
        super().__init__(f"the study run {run_id} was deleted in MLflow. Run the same command again for a new one.")


class LaunchUnknown(AblationError):
    """A run or an experiment that the environment names and MLflow does not have."""

    def __init__(self, variable: str, value: str, *, tracking_uri: str) -> None:
        super().__init__(
            f"{variable} is {value!r}, and MLflow at {tracking_uri} has nothing of that ID. `mlflow run` sets it; "
            f"unset it ({variable}) where it is left from something else, or set the address of the store that has it."
        )


class RecordRefused(AblationError):
    """MLflow does not take what is to be recorded of a run, however often it is asked."""

    def __init__(self, run: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"MLflow refuses the record of {run}: {reason}")


class NoResults(AblationError):
    """A study with no finished run, of which nothing can be reported."""

    def __init__(self, name: str) -> None:
        super().__init__(f"study {name!r} has no finished run yet: there is nothing to report.")


class NoiseUnknown(AblationError):
    """A recorded study that does not tell how much a metric varies from seed to seed."""

    def __init__(self, study: str, metric: str) -> None:
        super().__init__(
            f"study {study!r} does not tell the noise of {metric!r}: none of its comparisons has two seeds, all runs "
            "done and stable, whose differences vary; give a number with --noise, or another study @ --noise-from"
        )


class TrackingUnavailable(AblationError):
    """MLflow's store cannot be reached or opened."""

    def __init__(self, tracking_uri: str, reason: str) -> None:
        super().__init__(
            f"cannot use MLflow at {tracking_uri}: {reason.rstrip('.')}. "
            "Set the address with --tracking-uri or MLFLOW_TRACKING_URI."
        )


class ArtifactsUnusable(TrackingUnavailable):
    """The place where MLflow keeps an experiment's files cannot be used."""

    def __init__(self, place: str, reason: str) -> None:
        AblationError.__init__(
            self,
            f"MLflow cannot use {place}: {reason}. It keeps an experiment's files where --default-artifact-root says, "
            "or a server with --serve-artifacts; it is no matter of --tracking-uri. An experiment keeps its place for "
            "good: where that is wrong, run the study under another name (--name NEW).",
        )


class RunsNotRecorded(AblationError):
    """Runs that have ended and are kept, and that MLflow could not be told of."""

    def __init__(self, study: str, count: int, reason: str) -> None:
        runs = "1 run has" if count == 1 else f"{count} runs have"
        super().__init__(
            f"{runs} ended and could not be recorded: {reason}\nWhat they measured is kept in the state folder. Once "
            f"that is put right, `{commands.shown('sync', study)}` records what is left, and so does the same command "
            "again."
        )


class MetricsMissing(AblationError):
    """A first run that ended without the metrics which the study compares on, as all others would."""

    def __init__(self, study: str, run: str, error: str) -> None:
        _, _, reason = error.strip().rpartition("\n")[2].partition(": ")
        super().__init__(
            f"run {run} of study {study!r} ended without what is compared, and no run of it has a result: {reason}. "
            "The other runs were not begun, as they would end so too. Correct the training function, or the names @ "
            "metric or metrics, and run the same command again with --retry-failed."
        )


class ValidationMissing(AblationError):
    """A first tuning trial of a training function that gave no value on validation, as none of the others would."""

    def __init__(self, study: str, trial: str, metric: str, error: str) -> None:
        _, _, reason = error.strip().rpartition("\n")[2].partition(": ")
        super().__init__(
            f"{trial} of study {study!r} ended without {metric}, which tuning looks at: {reason}. No other trial was "
            f"begun, and nothing was compared. Report it after each epoch, as `report({metric}=…)`, or return it, of "
            "the validation split; or name another one @ metric.validation. Then run the same command again."
        )


class DiskFull(AblationError):
    """No room, or no leave, to write what a study measures."""

    def __init__(self, folder: Path, reason: str) -> None:
        self.folder, self.reason = folder, reason
        super().__init__(
            f"cannot write in {folder}: {reason}. What was kept before is whole: make room and run the same command "
            "again, which resumes from there, or move the state folder to where there is room, and name it with "
            "--state-dir."
        )


class StateUnavailable(AblationError):
    """A state folder that cannot be made or written."""

    def __init__(self, folder: Path, error: OSError) -> None:
        super().__init__(
            f"cannot use the state folder {folder}: {_with_file(error, folder)}. Choose a folder that can be written "
            "with --state-dir or ABLATION_STATE_DIR."
        )


class LockUnavailable(AblationError):
    """A file that cannot be locked: its folder cannot be written, or its file system has no locks."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"cannot lock {path}: {_with_file(error, path)}. Locks keep two processes from writing to one place; they "
            f"need a folder that can be written, on a file system that has them, as a local disk does. {path.parent} "
            "is not: choose another with --state-dir, or with --storage or --tracking-uri where a database lies there."
        )


class ArgumentInvalid(AblationError):
    """An argument of a call from Python that is of a wrong type or out of range."""

    def __init__(self, argument: str, value: object, wanted: str) -> None:
        shown = repr(value)
        shown = shown if len(shown) <= _LONGEST_NAME else f"{shown[: _LONGEST_NAME - 1]}…"
        super().__init__(f"{argument} must be {wanted}, not {shown}")


class ClusterInvalid(AblationError):
    """What is to name an engine's scheduler, and is neither its file nor its address."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(
            f"{where!r} names no scheduler: {reason}. Give the file that it writes, dask:scheduler.json, or its "
            "address, dask:tls://HOST:8786 or dask:tcp://127.0.0.1:8786 @ --executor"
        )


class NetworkOpen(AblationError):
    """An engine's address that others can reach, where nothing asks them who they are."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"{address} may be reached from elsewhere, and whoever reaches it can run code as you: dask asks nobody "
            "who they are. Use TLS (tls://, with certificates in dask's own configuration), or keep it on one machine "
            "(`--host 127.0.0.1`, and `ssh -L` to it). Where you trust all who can reach it, accept that with "
            "--insecure-network."
        )


class CertificateMissing(AblationError):
    """An engine's address for which a certificate is needed, where none is configured."""

    def __init__(self, address: str, lacking: Sequence[str]) -> None:
        variables = ", ".join(f"DASK_{name.upper().replace('.', '__').replace('-', '_')}" for name in lacking)
        super().__init__(
            f"{address} asks for a certificate, and dask's configuration names none: set {', '.join(lacking)} in "
            f"~/.config/dask/*.yaml, or {variables} @ --executor"
        )


class CertificateForeign(AblationError):
    """A certificate that is not of those which an engine's scheduler trusts, or the other way round."""

    def __init__(self, address: str, lacking: Sequence[str]) -> None:
        super().__init__(
            f"{address} has another certificate than the one that dask is configured with here: name the files that "
            f"its scheduler was started with, in {', '.join(lacking)} @ --executor"
        )


class ExecutorUnknown(AblationError):
    """A kind of executor that there is not, or one that lacks where its scheduler is."""

    def __init__(self, asked: str, known: Sequence[str]) -> None:
        super().__init__(f"there is no executor {asked!r}; there are: {', '.join(known)} @ --executor")


class SchedulerMissing(AblationError):
    """An engine's scheduler that is not there, or does not answer; `waiting` says so while it is waited for."""

    def __init__(self, where: str, reason: str, patience_s: float = 0.0) -> None:
        what = f"there is no scheduler at {where}: {reason}."
        option = "" if "://" in where else f" --scheduler-file {where}"
        how = f"Start one with `dask scheduler{option} --host HOST`, and workers with `dask worker`."
        self.waiting = f"{what} {how} It is waited for, {patience_s / 60:.0f} min at most."
        waited = f" It was waited for {patience_s / 60:.0f} min." if patience_s else ""
        super().__init__(f"{what}{waited} {how}")


class EngineMissing(AblationError):
    """An engine that is asked for and not installed."""

    def __init__(self, engine: str, package: str) -> None:
        super().__init__(
            f"{engine} is not installed here: `pip install {package}`, or this project with its extra [{engine}], here "
            "and where its workers run @ --executor"
        )


class AddressInvalid(AblationError):
    """An address of a store that cannot be read as one, or a place that no address can name."""

    def __init__(self, reason: str, *, at: str = "--tracking-uri, --storage or --state-dir") -> None:
        self.reason = reason
        super().__init__(f"{reason} @ {at}")


class StorageUnavailable(AblationError):
    """Optuna's storage cannot be reached or opened."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"cannot use Optuna's storage at {url}: {reason.rstrip('.')}. Set it with --storage.")


class StorageForeign(StorageUnavailable):
    """A storage that another version of Optuna has made."""

    def __init__(self, url: str, version: str) -> None:
        AblationError.__init__(
            self,
            f"Optuna's storage at {url} was made by another version of Optuna, and {version} cannot use it. Where it "
            "is older, `optuna storage upgrade --storage ADDRESS` upgrades it; where it is newer, use that version "
            "of Optuna. Or name another database @ --storage",
        )


class DataUnavailable(AblationError):
    """A data set that is not there and cannot be fetched."""


class DataInvalid(AblationError):
    """A data set that was read and is not what it should be."""

    def __init__(self, source: Path | str, problems: Sequence[str]) -> None:
        shown = [*problems[:5], *([f"and {len(problems) - 5} more"] if len(problems) > 5 else [])]
        super().__init__("\n".join([f"the data in {source} cannot be used:", *(f"  {line}" for line in shown)]))


class DataIncomparable(AblationError):
    """Variants whose data differs in what they are tested by, or in nothing; `why` is empty where it is the same."""

    def __init__(self, data: str, why: str, *, twin: str = "") -> None:
        way = (
            "what is compared would be measured on other examples: return the same test examples in the same order at "
            "every level, or name several data sets as a list: `data: [{...}, {...}]`, each variant trained on each"
        )
        same = f"{data} gives the same data as {twin}: what differs in them changes nothing, so leave it out"
        super().__init__(f"{f'the data of {data} cannot be compared: {why}; {way}' if why else same} @ data")


class ModelInvalid(AblationError):
    """A model that cannot be built for the study's data; `path` is the key of the study file at fault."""

    def __init__(self, message: str, *, path: str) -> None:
        self.path = path
        super().__init__(f"{message} @ {path}")


class CodeInvalid(AblationError):
    """User code that is not there or does not do what it must; `path` is the key that names it.

    `traceback` is that of the user's code, where it raised.
    """

    def __init__(self, message: str, *, path: str, traceback: str = "") -> None:
        self.path = path
        shown = "".join(f"\n  {line}" for line in traceback.splitlines())
        super().__init__(f"{message} @ {path}{shown}")


class ObjectiveUndefined(AblationError):
    """A metric of the user's own that tuning looks at, and that has no value on validation."""

    def __init__(self, metric: str, epoch: int) -> None:
        super().__init__(
            f"{metric} is undefined on validation after epoch {epoch}, and tuning looks at it there; take another "
            "metric to tune by, or a larger share of data.validation"
        )


class CodeMissing(AblationError):
    """A package that the user's code imports, and that another machine has in another version, or not at all."""

    def __init__(self, package: str, wanted: str, found: str | None) -> None:
        there = f"{package} {found}" if found is not None else f"no {package}"
        super().__init__(f"it has {there}, and the study's code was identified with {package} {wanted}")


class SettingInvalid(AblationError):
    """A setting of a training that PyTorch refuses; `path` is the key of the study file at fault."""

    def __init__(self, message: str, *, path: str) -> None:
        self.path = path
        super().__init__(f"{message} @ {path}")


class ComponentInvalid(AblationError):
    """A component that the model lacks, or that cannot be removed or replaced; `path` is the key at fault."""

    def __init__(self, message: str, *, path: str) -> None:
        self.path = path
        super().__init__(f"{message} @ {path}")


class NoModel(AblationError):
    """A study for which no model is built, whose modules are asked for."""

    def __init__(self, study: str) -> None:
        super().__init__(
            f"no model is built for study {study!r}: its training function makes its own, whose modules are not known "
            "here @ training.name"
        )


class StudyWithin(AblationError):
    """A study that user code runs while it is imported for a study."""

    def __init__(self) -> None:
        super().__init__(
            "ablation.run was called by code that is being imported for a study: it would run for ever. Put the call "
            'below `if __name__ == "__main__":`, or the code that the study names into a file of its own'
        )


class ModelNotKept(AblationError):
    """A trained model that is asked for and cannot be had."""

    def __init__(self, study: str, reason: str) -> None:
        super().__init__(f"study {study!r} has no such model: {reason}")


class OutputsNotKept(AblationError):
    """A metric that is asked for after the runs, none of which has kept what it is computed from."""

    def __init__(self, study: str, reason: str) -> None:
        super().__init__(f"no run of study {study!r} has outputs on test to compute a metric from: {reason} @ --metric")


class MetricTaken(AblationError):
    """A metric that is asked for after the runs by a name that the study has for another."""

    def __init__(self, study: str, name: str) -> None:
        super().__init__(
            f"study {study!r} has a metric {name!r} already: `--metric {name}` judges by it; give the other one "
            f"another name, such as own_{name} @ --metric"
        )


class CodeUntrusted(AblationError):
    """Code that a recorded study names, and that whoever asks for its model has not said to trust."""

    def __init__(self, study: str, name: str, folders: Sequence[Path]) -> None:
        where = f"which is not in {', '.join(map(str, folders))}" if folders else "which is not imported unasked"
        super().__init__(
            f"the model of study {study!r} is made by {name!r}, {where}: MLflow says so, and whoever can write there "
            "can name any code. Where you trust it, give its folder (code='FOLDER': the study's report keeps a copy in "
            f"code/), or the name of installed code itself (code={name!r})"
        )


class CodeChanged(AblationError):
    """User code that was edited while a study ran, so that its runs would not be of the same code."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"{', '.join(names)} was changed while the study ran, or something that it imports; the study was stopped, "
            "and what it trained is kept. Put the code back and run it again to go on, or run it under another name "
            "(--name NEW) with the code as it is now."
        )


class DeviceUnavailable(AblationError):
    """A device that this machine does not have."""

    def __init__(self, asked: str, available: Sequence[str], *, reason: str | None = None) -> None:
        why = f" ({reason})" if reason else ""
        super().__init__(f"there is no device {asked!r} here{why}; available: {', '.join(available)} @ --device")


class PathUnavailable(AblationError):
    """A fast path that cannot train a model: the next slower one does, and the run records why."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = " ".join(reason.split())
        super().__init__(f"the {path} path cannot train this model: {self.reason}")


def os_error_text(error: OSError) -> str:
    """Return why the system refused something, and what helps where that is not plain."""
    reason = error.strerror or str(error)
    if isinstance(error, FileExistsError):
        reason = "not a folder"
    if error.errno in _TOO_MANY_FILES:
        reason += "; raise the limit with `ulimit -n 4096`, or use fewer --workers"
    return reason


def _with_file(error: OSError, told: Path) -> str:
    """Return why the system refused something, and of which file where it is another than is told."""
    reason = os_error_text(error)
    return f"{reason}: {error.filename}" if error.filename not in (None, str(told)) else reason


def is_no_room(error: OSError) -> bool:
    """Whether writing failed as the disk is full, over quota, read-only or broken."""
    return error.errno in _NO_ROOM


def _said_again(kind: type[CarriedError], args: tuple[object, ...], attributes: dict[str, object]) -> CarriedError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error
