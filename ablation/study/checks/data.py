"""Refuses what a data set's task, or a built-in data set, does not take."""

from collections.abc import Iterator, Mapping
from typing import Any

from ablation.lookup import is_same
from ablation.study.file import Location
from ablation.study.sections import OF_TASKS, TASKS_OF, OwnData, section_of
from ablation.study.spec import task_of

OTHER_TASK = 'another task needs data of your own: `data: {name: "data.py:load", task: regression}`'


def data_problems(values: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
    """Refuse a task of built-in data, whose targets are classes, and settings that are another task's."""
    data = values.get("data")
    name = data.get("name") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(name, str):
        return
    if section_of("data", values) is not OwnData:
        for key in OF_TASKS:
            if key in data:
                yield ("data", key), f"{name} has classes, so its task is classification; leave {key} out: {OTHER_TASK}"
        return
    task = task_of(values)
    for key, tasks in TASKS_OF.items():
        default = OwnData.model_fields[key].default
        if key in data and task not in tasks and not is_same(data[key], default):
            takers = " and ".join(tasks)
            yield ("data", key), f"{key} is a setting of {takers}; the task of this data is {task}, leave it out"
