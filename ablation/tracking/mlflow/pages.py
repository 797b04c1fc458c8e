"""What MLflow shows of a study to a person: the report, notes, saved views, and the addresses that lead there."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.entities import Run
from PIL import Image

from ablation.output import plain
from ablation.records import AnswerSummary, Plan, PlannedRun
from ablation.storage.databases import absolute, without_password
from ablation.storage.temporary import temporary_folder
from ablation.tracking.interface import START_UI, StudyRecord
from ablation.tracking.mlflow.addresses import artifact_address, image_address, run_address, runs_address
from ablation.tracking.mlflow.answers import AnswerRecords
from ablation.tracking.mlflow.attempts import KIND, STUDY
from ablation.tracking.mlflow.notes import NOTE, experiment_description, is_free, run_note, study_note
from ablation.tracking.mlflow.reading import HEADLINE, IDENTITY, ORDER, children_of, outcome_of, search_runs
from ablation.tracking.mlflow.run_records import RunRecords
from ablation.tracking.mlflow.store import DEFAULT_URI, Store
from ablation.tracking.mlflow.study_runs import is_linked
from ablation.tracking.mlflow.views import order_of, saved_views, view_key

REPORTS = ("report.html", "report.md")
FIGURE = "figures/forest.png"
NOTE_FIGURE = "note-forest.png"
NOTE_WIDTH = 720  # pixels; a wider image widens the note, whose text is then cut off at the column's edge
MAX_HEADLINE = 1_500
VERDICTS = "verdicts"
"""Tag of an experiment: how the questions of the study stand that its description is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pages:
    """The pages that show studies in a store."""

    store: Store
    records: RunRecords

    def log_report(
        self,
        record: StudyRecord,
        folder: Path,
        *,
        overview: Sequence[str],
        answers: Sequence[AnswerSummary],
        launch: Run | None,
    ) -> None:
        """Keep a report with the study run, and with the run of `mlflow run` that links to it."""
        linked = [launch.info.run_id] if launch is not None and is_linked(launch) else []
        for run_id in dict.fromkeys([record.study_run_id, *linked]):
            self._log_report(record, run_id, folder, overview, answers)
        self._describe_runs(record)
        self.store.tag(record.study_run_id, {HEADLINE: plain(overview[0])[:MAX_HEADLINE]})
        self.store.client.set_experiment_tag(record.experiment_id, VERDICTS, _counted(answers))
        self.describe_experiment(record)

    def _log_report(
        self,
        record: StudyRecord,
        run_id: str,
        folder: Path,
        overview: Sequence[str],
        answers: Sequence[AnswerSummary],
    ) -> None:
        self.store.client.log_artifacts(run_id, str(folder))
        reports = [name for name in REPORTS if (folder / name).exists()]
        links = {
            **{name: artifact_address(record.experiment_id, run_id, name) for name in reports},
            **_view_addresses(record),
        }
        figure = self._log_note_figure(run_id, folder / FIGURE) if (folder / FIGURE).exists() else None
        self.records.log_data(run_id, *record.plan.data_sets)
        AnswerRecords(store=self.store, records=self.records).log(run_id, answers)
        self.store.tag(run_id, {NOTE: study_note(overview, answers, links=links, figure=figure)})

    def _describe_runs(self, record: StudyRecord) -> None:
        """Give each run of the study a note, unless a person has written one, and its place in the table."""
        planned = {run.identity: run for run in record.plan.runs}
        for run in children_of(self.store.client, record, f"tags.`{KIND}` = 'run'"):
            of = planned.get(run.data.tags.get(IDENTITY, ""))
            if of is None:
                continue
            now = run.data.tags.get(NOTE, "")
            note = _note(of, record.plan, run) if is_free(now) else now
            tags = {ORDER: order_of(of, record.plan), NOTE: note}
            if any(run.data.tags.get(key) != value for key, value in tags.items()):
                self.store.tag(run.info.run_id, tags)

    def describe_experiment(self, record: StudyRecord) -> None:
        """Write the study's views, and what the experiment is about unless a person has written that."""
        experiment_id = record.experiment_id
        for key, value in saved_views(record.plan).items():
            self.store.client.set_experiment_tag(experiment_id, key, value)
        studies = {
            run.info.run_id: run.data.tags
            for run in search_runs(self.store.client, [experiment_id], f"tags.`{KIND}` = 'study'")
        }
        found = studies.pop(record.study_run_id, {}).get(HEADLINE, "")
        known = self.store.client.get_experiment(experiment_id).tags
        if not found and VERDICTS in known:  # of a study that was deleted, or of another one here
            self.store.client.delete_experiment_tag(experiment_id, VERDICTS)
        now = known.get(NOTE, "")
        if not is_free(now):
            return
        others = {tags[STUDY]: run_address(experiment_id, run_id) for run_id, tags in studies.items()}
        links = self._addresses(record)
        text = experiment_description(record.plan, found=found, links=links, others=others)
        if text != now:
            self.store.client.set_experiment_tag(experiment_id, NOTE, text)

    def _log_note_figure(self, run_id: str, figure: Path) -> str:
        """Keep a copy of a figure that is narrow enough for a note, and return its address."""
        with temporary_folder() as folder, Image.open(figure) as image:
            path = folder / NOTE_FIGURE
            width = min(NOTE_WIDTH, image.width)
            image.convert("RGB").resize((width, round(image.height * width / image.width))).save(path)
            self.store.client.log_artifact(run_id, str(path), "figures")
        return image_address(run_id, f"figures/{NOTE_FIGURE}")

    def links(self, record: StudyRecord) -> tuple[tuple[str, str], ...]:
        with self.store.explained():
            found = self._addresses(record)
        server = self._server()
        start = ((START_UI, self.ui_command()),) if server is None else ()
        base = server or "http://127.0.0.1:5000"
        return (*start, *((label, f"{base}/{address}") for label, address in found.items()))

    def run_address(self, record: StudyRecord, run_id: str) -> str | None:
        server = self._server()
        return f"{server}/{run_address(record.experiment_id, run_id)}" if server is not None else None

    def _server(self) -> str | None:
        """Return the address of the server that keeps the store, None where it is a database."""
        uri = self.store.tracking_uri
        return uri.rstrip("/") if uri.startswith(("http://", "https://")) else None

    def _addresses(self, record: StudyRecord) -> dict[str, str]:
        """Return the pages that show the study, by what they show; a report only where there is one."""
        kept = {file.path for file in self.store.client.list_artifacts(record.study_run_id)}
        report = next((name for name in REPORTS if name in kept), None)
        return {
            **_view_addresses(record),
            "study run": run_address(record.experiment_id, record.study_run_id),
            **({"report": artifact_address(record.experiment_id, record.study_run_id, report)} if report else {}),
        }

    def ui_command(self) -> str:
        is_default = self.store.tracking_uri == absolute(DEFAULT_URI)
        address = shlex.quote(without_password(self.store.tracking_uri))
        return "python -m ablation ui" + ("" if is_default else f" --tracking-uri {address}")


def _counted(answers: Sequence[AnswerSummary]) -> str:
    """Return `2 helps, 1 undecided`: what MLflow's list of experiments has room for."""
    counts = Counter(answer.verdict for answer in sorted(answers, key=lambda answer: not answer.is_decided))
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items())


def _note(planned: PlannedRun, plan: Plan, run: Run) -> str:
    """Return the note of a run as MLflow has it."""
    return run_note(
        planned,
        plan,
        outcome_of(run),
        metrics=run.data.metrics,
        error=run.data.tags.get("ablation.error"),
        diverged_epoch=run.data.tags.get("ablation.diverged_epoch"),
    )


def _view_addresses(record: StudyRecord) -> dict[str, str]:
    name, experiment_id = record.plan.name, record.experiment_id
    return {
        "runs": runs_address(experiment_id, view_key(name, "runs")),
        "by variant": runs_address(experiment_id, view_key(name, "variants")),
        "charts": runs_address(experiment_id, view_key(name, "charts"), is_chart=True),
    }
