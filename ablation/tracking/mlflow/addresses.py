"""Where MLflow's UI shows a study: addresses from the `#` on, which hold on whatever host and path it is served."""

from urllib.parse import quote, urlencode

MODE = "workflowType=machine_learning"  # without it a fresh browser opens MLflow in its GenAI mode, on empty traces


def runs_address(experiment_id: str, view_key: str, *, is_chart: bool = False) -> str:
    """Return the run table, or its chart view, as a saved view sets it up."""
    chart = "&compareRunsMode=CHART" if is_chart else ""
    return f"#/experiments/{experiment_id}/runs?{MODE}{chart}&viewStateShareKey={view_key}"


def run_address(experiment_id: str, run_id: str) -> str:
    return f"#/experiments/{experiment_id}/runs/{run_id}?{MODE}"


def artifact_address(experiment_id: str, run_id: str, path: str) -> str:
    """Return the page that shows an artifact of a run."""
    return f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/{quote(path)}?{MODE}"


def image_address(run_id: str, path: str) -> str:
    """Return an image artifact itself, for a note to show: relative to the page, and no `#` address."""
    return f"get-artifact?{urlencode({'path': path, 'run_uuid': run_id})}"
