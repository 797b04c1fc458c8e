"""Tags in MLflow keep the names that studies recorded before have: a study is found, held and read by them."""

from pathlib import Path
from typing import Any

from factories import make_plan

from ablation.storage.holder import this_process
from ablation.testing.trackers import PROVENANCE, artifacts_in, result_of


def test_tags_have_the_names_that_recorded_studies_have(mlflow_tracker: Any, tmp_path: Path) -> None:
    holder = this_process(state_folder=tmp_path, nonce="nonce")
    record = mlflow_tracker.open_study(make_plan(seeds=1), holder=holder)
    planned = record.plan.runs[0]
    run_id = mlflow_tracker.start_run(record, planned, PROVENANCE, attempt="first")
    mlflow_tracker.finish_run(run_id, result_of(planned.identity), artifacts_in(tmp_path))

    client = mlflow_tracker.store.client
    assert {
        "ablation.data_digest",
        "ablation.holder",
        "ablation.kind",
        "ablation.locked_hash",
        "ablation.study",
    } == _ours(client.get_run(record.study_run_id).data.tags)
    assert {
        "ablation.attempt",
        "ablation.device",
        "ablation.final_metrics",
        "ablation.git_commit",
        "ablation.host",
        "ablation.identity",
        "ablation.kind",
        "ablation.locked_hash",
        "ablation.order",
        "ablation.outcome",
        "ablation.python_version",
        "ablation.read_back",
        "ablation.seed",
        "ablation.study",
        "ablation.torch_version",
        "ablation.variant",
        "ablation.version",
    } == _ours(client.get_run(run_id).data.tags)


def _ours(tags: dict[str, str]) -> set[str]:
    return {name for name in tags if name.startswith("ablation.")}
