"""Writes the saved views that open MLflow's run table on a study: its runs, its variants, and charts of them.

The format is MLflow's own and undocumented (seen in 3.17): an experiment tag whose value is JSON, its state deflated
and in base 64. A version that does not understand it shows its plain table.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ablation.records import TASKS, Plan, PlannedRun
from ablation.tracking.mlflow.reading import ORDER, OUTCOME

View = Literal["runs", "variants", "charts"]
MAX_EXPERIMENT_TAG = 20_000  # MLflow refuses longer ones
_TAG = "mlflow.sharedViewState."
_VARIANT_TAG = "ablation.variant"
_NAME_COLUMN, _TIME_COLUMN = "attributes.`Run Name`", "runDateAndNestInfo"
_MOST_NAME_WIDTH, _MOST_GROUP_WIDTH = 280, 350
"""Pixels: with MLflow's own panels open on a screen of 1440, the study's metric and one or two more have room."""
_TIME_WIDTH = 46  # the mark of how a run stands, which stands before the time


def view_key(study: str, view: View) -> str:
    """Return what a link names a view by; studies that share an experiment have views of their own."""
    return f"ablation-{view}-{hashlib.sha256(study.encode()).hexdigest()[:8]}"


def saved_views(plan: Plan) -> dict[str, str]:
    """Return the experiment tags, by name, that make up the views; one that MLflow would refuse is left out."""
    states: dict[View, dict[str, Any]] = {"runs": _runs(plan), "variants": _variants(plan), "charts": _charts(plan)}
    tags = {f"{_TAG}{view_key(plan.name, view)}": _tag(f"{plan.name}: {view}", state) for view, state in states.items()}
    return {key: value for key, value in tags.items() if len(value) <= MAX_EXPERIMENT_TAG}


def order_of(planned: PlannedRun, plan: Plan) -> str:
    """Return the place of a run in its study's table: the baseline's runs first, each variant's by seed."""
    names = [plan.baseline.name, *(variant.name for variant in plan.variants if not variant.is_baseline)]
    return f"{names.index(planned.variant):06}.{planned.seed:06}"


def _runs(plan: Plan) -> dict[str, Any]:
    """Return the table of runs: each one's metrics, levels, seed and outcome.

    It is ordered by a tag, not by time: ordered by time MLflow folds the runs into their study run. Runs of earlier
    versions, which have no such tag, come last.
    """
    levels = [f"params.`{name}`" for name in (*plan.baseline.levels, "seed")]
    return {
        "searchFilter": f"tags.`ablation.kind` = 'run' and tags.`ablation.study` = '{plan.name}'",
        "orderByKey": f"tags.`{ORDER}`",
        "orderByAsc": True,
        "groupBy": None,
        "runsHiddenMode": "SHOW_ALL",
        **_columns([*_metric_columns(plan), *levels, f"tags.`{OUTCOME}`"], name_width=_name_width(plan)),
    }


def _variants(plan: Plan) -> dict[str, Any]:
    """Return the table with one row per variant, each metric its mean over the seeds."""
    return {
        **_runs(plan),
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": _VARIANT_TAG}]},
        "groupsExpanded": {f"tag.{_VARIANT_TAG}.{variant.name}": False for variant in plan.variants},
        "useGroupedValuesInCharts": True,
        **_columns([*_metric_columns(plan), "params.`parameters`"], name_width=_group_width(plan)),
    }


def _charts(plan: Plan) -> dict[str, Any]:
    """Return the charts of variants: the metric's means as bars, and how the held-out score came about by epoch."""
    section = {"uuid": "ablation", "name": f"Study {plan.name}", "display": True, "isReordered": False}
    split, score = plan.heldout_split, TASKS[plan.task].score
    curves = (f"{split}_{score}", f"{split}_loss", f"train_sample_{score}", "train_loss")
    bars = [_chart("BAR", name) for name in _metrics(plan)]
    lines = [_chart("LINE", name) for name in curves]
    return {
        **_variants(plan),
        "compareRunCharts": [bars[0], lines[0], *bars[1:], *lines[1:]],
        "compareRunSections": [{**section, "deleted": False, "isGenerated": False}],
        "isAccordionReordered": True,
    }


def _chart(kind: Literal["BAR", "LINE"], metric: str) -> dict[str, Any]:
    card = {
        "uuid": f"ablation-{kind}-{metric}",
        "type": kind,
        "metricKey": metric,
        "metricSectionId": "ablation",
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": False,
    }
    if kind == "BAR":
        return card
    by_epoch = {"xAxisKey": "step", "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True, "yAxisKey": "metric"}
    axes = {"xAxisScaleType": "linear", "scaleType": "linear", "range": {}, "yAxisExpressions": []}
    return {
        **card,
        **axes,
        **by_epoch,
        "selectedMetricKeys": [metric],
        "lineSmoothness": 0,
        "selectedXAxisMetricKey": "",
    }


def _columns(columns: Sequence[str], *, name_width: int) -> dict[str, Any]:
    """Return the table's columns in their order, wide enough to read; MLflow always has those of name and time."""
    widths = {column: _width(column.partition(".")[2]) + 24 for column in columns}
    widths = {_NAME_COLUMN: name_width, **widths, _TIME_COLUMN: _TIME_WIDTH}
    return {"selectedColumns": list(columns), "columnOrder": list(widths), "columnWidths": widths}


def _name_width(plan: Plan) -> int:
    """Return the width of names beside the dot that stands before them."""
    return min(max(_width(f"{variant.name}/seed-00") for variant in plan.variants) + 50, _MOST_NAME_WIDTH)


def _group_width(plan: Plan) -> int:
    """Return the width of groups' names between what opens them and the number of their runs."""
    return min(max(_width(f"Group: {variant.name}") for variant in plan.variants) + 110, _MOST_GROUP_WIDTH)


def _width(text: str) -> int:
    return 7 * len(text)


def _metric_columns(plan: Plan) -> list[str]:
    return [f"metrics.`{name}`" for name in _metrics(plan)]


def _metrics(plan: Plan) -> list[str]:
    """Return the metrics that the study is judged by, the primary one first, and what they cost."""
    asked = [question.on for question in plan.locked.questions]
    names = [plan.locked.metric.name, *filter(None, asked), "test_loss", "training_seconds"]
    return list(dict.fromkeys(names))


def _tag(name: str, state: Mapping[str, Any]) -> str:
    deflated = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{deflated}"})
