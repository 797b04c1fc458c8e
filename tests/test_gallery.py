"""The studies of tasks beyond classification train as they stand, cut down to seconds; the README names every study."""

import pytest
from bench import Bench
from conftest import PROJECT

from ablation.records import Outcome
from ablation.study import load_study, overrides_of

SMALLER = {
    "diabetes": {},
    "tiny-gpt": {"data.sentences": 40, "data.context": 16, "model.width": 8},
    "segmentation": {"data.train_images": 32, "data.test_images": 16, "model.width": 2},
}
"""What makes a study one of seconds, beside fewer epochs and seeds."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLER)
def test_a_study_of_the_gallery_trains_and_is_judged_by_its_metric(name: str, bench: Bench) -> None:
    cut = overrides_of({"training.epochs": 1, "seeds": 2, **SMALLER[name]})
    study = load_study(PROJECT / "studies" / name / "study.yaml", overrides=cut, name=name)

    outcome = bench.run(study)

    assert outcome.ended == {Outcome.DONE: len(study.variants) * 2}
    assert outcome.analysis is not None
    assert outcome.analysis.metric.name == study.spec.metric.name


def test_the_readme_names_every_study_to_start_from() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    pages = [path.parent for path in (PROJECT / "studies").glob("*/study.yaml")]
    files = (PROJECT / "studies").glob("*.yaml")

    links = {*(f"(studies/{page.name}/README.md)" for page in pages), *(f"(studies/{file.name})" for file in files)}

    assert set() == {link for link in links if link not in readme}
