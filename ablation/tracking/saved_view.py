"""Writes the saved view that opens MLflow's run table with the study's factors, seed and metrics as columns.

The format is MLflow's own and undocumented (seen in 3.17): an experiment tag whose value is JSON, its state deflated
and in base 64. A version that does not understand it shows its plain table.
"""

import base64
import json
import zlib

from ablation.results import Plan

VIEW_KEY = "ablation"
_TAG = f"mlflow.sharedViewState.{VIEW_KEY}"


def saved_view(plan: Plan) -> dict[str, str]:
    """Return the experiment tags, by name, that make up the view.

    It is ordered by name, not by time: ordered by time MLflow folds the runs into their study run.
    """
    factors = list(plan.study["factors"])
    metric = plan.locked["metric"]["name"]
    columns = [
        *(f"params.`{name}`" for name in (*factors, "seed")),
        *(f"metrics.`{name}`" for name in dict.fromkeys((metric, "test_loss", "training_seconds"))),
        "tags.`ablation.outcome`",
    ]
    state = {
        "searchFilter": f"tags.`ablation.kind` = 'run' and tags.`ablation.study` = '{plan.name}'",
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": True,
        "selectedColumns": ["attributes.`Duration`", *columns],
        "groupBy": None,
    }
    deflated = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    view = {"name": plan.name, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{deflated}"}
    return {_TAG: json.dumps(view)}
