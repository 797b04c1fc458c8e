"""What somebody else could try: each row of the threats in SECURITY.md, and that it comes to nothing.

A server that others reach is held in test_serving.py, archives and links in test_datasets.py and test_damaged_data.py,
YAML in test_study_file.py and test_hostile_studies.py.
"""

import ast
import dataclasses
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from bench import Bench
from click.testing import CliRunner
from conftest import PROJECT, TINY
from factories import make_plan, make_runs, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup
from packaging.version import Version
from test_hostile_studies import STRUCTURES
from test_report_html import HOSTILE as MARKUP
from test_report_html import Page, check_harmless
from test_study_file import positions, put

from ablation.analysis import analyse
from ablation.cli import main
from ablation.errors import SettingsForeign
from ablation.records import Outcome, Plan, PlannedRun, RecordedRun, RunResult, Settings, TunedVariant, TuningTrial
from ablation.report import answers_text, report_text
from ablation.report.html import html_document
from ablation.report.page_rows import rows_html
from ablation.report.rows import first_screen
from ablation.storage.run_folder import RunFolder
from ablation.study import Override, Study, parse_study
from ablation.study.identity import run_identity
from ablation.study.plan_json import plan_from_json, plan_to_json
from ablation.tracking import StudyRecord, Tracker, open_mlflow
from ablation.worker.artifacts import write_configuration

SOURCES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((PROJECT / "ablation").rglob("*.py"))}


CALLS = [
    (f"{path.relative_to(PROJECT)}:{node.lineno}", ast.unparse(node.func), node)
    for path, tree in SOURCES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)
]


def calls(*names: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield what calls one of these functions, by its last names: `torch.load`, `load_model`, `eval`."""
    for where, called, node in CALLS:
        if any(called == name or called.endswith(f".{name}") for name in names):
            yield f"{where} {called}", node


def imported() -> Iterator[tuple[Path, str]]:
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from ((path, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                yield path, node.module
                yield from ((path, f"{node.module}.{alias.name}") for alias in node.names)


def says(call: ast.Call, option: str, value: object) -> bool:
    found = [keyword.value for keyword in call.keywords if keyword.arg == option]
    return any(isinstance(each, ast.Constant) and each.value is value for each in found)


class TestPickles:
    def test_torch_loads_weights_only(self) -> None:
        assert [] == [where for where, call in calls("torch.load") if not says(call, "weights_only", True)]

    def test_numpy_loads_no_objects(self) -> None:
        assert [] == [where for where, call in calls("np.load") if not says(call, "allow_pickle", False)]

    def test_nothing_is_unpickled_but_what_the_same_call_or_a_process_of_the_same_study_has_pickled(self) -> None:
        unpickling = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
        found = {name for _, name in imported() if name.partition(".")[0] in unpickling}
        read = {
            (where.rpartition(":")[0], ast.unparse(call.args[0]))
            for where, call in calls("pickle.load", "pickle.loads", "pickle.Unpickler")
        }

        assert {"pickle"} == found
        assert {
            ("ablation/executors/interface.py", "pickle.dumps(error)"),
            ("ablation/executors/serving.py", "asked"),  # a worker, of the process that started it
            ("ablation/executors/nodes/jobs.py", "call"),  # a process of a node, of its coordinator
            ("ablation/executors/nodes/remote.py", "sent"),  # the coordinator, of a node: dask does so too
        } == read

    def test_no_model_of_mlflows_is_loaded(self) -> None:
        flavours = ("mlflow.pyfunc", "mlflow.pytorch", "mlflow.sklearn", "mlflow.models", "mlflow.transformers")

        assert [] == [(path.name, name) for path, name in imported() if name.startswith(flavours)]
        assert [] == [
            where for where, _ in calls("load_model", "load_context", "read_pickle", "load_state_dict_from_url")
        ]

    def test_code_is_made_from_text_only_where_the_users_own_is_loaded(self) -> None:
        makes = ("eval", "exec", "compile", "__import__", "import_module", "spec_from_file_location", "run_path")
        found = {
            where for where, call in calls(*makes) if ast.unparse(call.func) in (*makes, "importlib.import_module")
        }

        others = {where.partition(":")[0] for where in found if not where.startswith("ablation/code/")}
        assert {"ablation/worker/torch_metrics.py"} == others  # parts of torchmetrics, by names of a list

    def test_no_shell_is_started(self) -> None:
        assert [] == [
            where for where, call in calls("run", "Popen", "check_output", "call") if says(call, "shell", True)
        ]
        assert [] == [where for where, _ in calls("os.system", "os.popen")]

    def test_torch_is_one_whose_weights_only_holds(self) -> None:
        assert Version("2.10") <= Version(torch.__version__)


TRAP = "from pathlib import Path\n\nPath(__file__).with_name('owned').touch()\nbuild = load = loss = fit = print\n"
NAMES_OF_CODE = ("trap.py:build", "trap:build", "./trap.py:build")


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory has a module that leaves a file when it is imported; give that file's path."""
    (tmp_path / "trap.py").write_text(TRAP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "owned"


@pytest.fixture
def command(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    return lambda *words: CliRunner().invoke(main, list(words))


def naming(plan: Plan, code: str) -> Plan:
    """Return a plan that names code wherever a study may."""
    sections = {
        "data": {"name": code, "validation": "none"},
        "model": {"name": code, "replace": {"*": code}},
        "training": {"loss": code, "epochs": 4},
    }
    named = plan.baseline.settings.plain()
    named |= {name: {**named[name], **section} for name, section in sections.items()}
    settings = Settings.from_plain(named)
    variants = tuple(
        dataclasses.replace(one, settings=settings, configuration={**one.configuration, **sections})
        for one in plan.variants
    )
    codes = {variant.name: "0" * 32 for variant in variants}
    return dataclasses.replace(plan, study={**plan.study, **sections}, variants=variants, code=codes)


def record(tracker: Tracker, plan: Plan) -> StudyRecord:
    """Record every run of a plan as done."""
    study = tracker.open_study(plan)
    for run in make_runs(plan):
        run_id = tracker.start_run(study, run.planned, {"device": "cpu"}, attempt="first")
        tracker.finish_run(
            run_id,
            RunResult(identity=run.planned.identity, outcome=Outcome.DONE, metrics=run.metrics, epochs=4),
            None,
        )
    return study


class TestCodeNamedByTheServer:
    def test_the_trap_is_one(self, trap: Path) -> None:
        from ablation.code import CodeFolders

        CodeFolders(folders=(trap.parent,)).load("trap.py:build", path="model.name")

        assert trap.exists()

    @pytest.mark.slow
    @pytest.mark.parametrize("code", NAMES_OF_CODE)
    def test_nothing_that_reads_a_recorded_study_imports_code_that_it_names(
        self, trap: Path, command: Callable[..., Any], store_uri: str, code: str
    ) -> None:
        record(open_mlflow(store_uri), naming(make_plan(factors={"model.depth": (2, 3)}, seeds=2), code))
        commands = [
            ("status",),
            ("status", "quick", "--json"),
            ("summarize", "quick"),
            *(("summarize", "quick", "--format", form) for form in ("markdown", "json", "latex")),
            ("compare", "quick", "depth=2", "depth=3"),
            ("export", "quick"),
            ("export", "quick", "--epochs"),
        ]

        for words in commands:
            result = command(*words)
            assert 0 == result.exit_code, result.output
        assert not trap.exists()

    @pytest.mark.parametrize(
        "settings",
        [
            {"training.loss": "trap.py:loss"},
            {"model.name": "trap.py:build"},
            {"model.replace": {"*": "trap.py:build"}},
            {"training.learning_rate": "trap.py:build"},
            {"training.learning_rate": 0.01, "training.loss": "trap.py:loss"},
            {"training.learning_rate": 5.0},
            {"training.learning_rate": None},
        ],
    )
    def test_tuned_settings_on_record_reach_a_run_only_as_the_study_file_allows(
        self, trap: Path, bench: Bench, settings: Mapping[str, Any]
    ) -> None:
        study = tuned_study()
        trial = TuningTrial(
            number=0, settings=settings, outcome="done", value=1.0, curve=(1.0,), seconds=1.0, run_ids=()
        )
        found = tuple(
            TunedVariant(variant=variant.name, trials=(trial,), chosen=0, settings=settings)
            for variant in study.design_variants()
        )
        facts = dataclasses.replace(plan_of(study).data, digest=digest_of(study, bench))
        bench.tracker.open_study(dataclasses.replace(plan_of(study), tuning=found, data=facts))

        with pytest.raises(SettingsForeign, match="is not tuned, or has a value outside its space @ tune"):
            bench.run(study)
        assert [] == bench.trained
        assert not trap.exists()

    def test_tuned_settings_that_the_study_could_find_are_taken(self) -> None:
        study = tuned_study()
        name = study.design_variants()[0].name

        assert 0.01 == study.tuned({name: {"training.learning_rate": 0.01}}).variants[0].settings.engine.learning_rate


def tuned_study() -> Study:
    return parse_study(
        TINY,
        source="tiny.yaml",
        name="tuned",
        overrides=[
            Override(path="data.validation", value=0.2),
            Override(path="factors", value={"model.normalization": ["none", "batch"]}),
            Override(path="tune", value={"training.learning_rate": {"log": [1e-4, 1e-1]}, "trials": 1}),
        ],
    )


def digest_of(study: Study, bench: Bench) -> str:
    from ablation.datasets import prepare

    return prepare(study.variants[0].settings.data, cache=bench.state.data).facts.digest


LEADING_OUT = [
    "../../owned",
    "/etc/owned",
    "..",
    ".",
    "a/../../../owned",
    "a\\b",
    "a\0b",
    "a\nb",
    "",
    "a" * 201,
    None,
    5,
]


class TestNamesFromTheServer:
    @pytest.mark.parametrize("name", LEADING_OUT)
    def test_a_plan_whose_name_leads_elsewhere_is_none(self, name: object) -> None:
        document = {**json.loads(plan_to_json(make_plan()))}
        document["study"]["name"] = name

        with pytest.raises(ValueError, match=r"cannot be the name of a study|should be a valid string @ name"):
            plan_from_json(json.dumps(document))

    @pytest.mark.parametrize("identity", ["../../owned", "", "A" * 32, "0" * 31])
    def test_a_plan_whose_runs_lead_elsewhere_is_none(self, identity: str) -> None:
        document = json.loads(plan_to_json(make_plan()))
        document["runs"][0]["identity"] = identity

        with pytest.raises(ValueError, match="identity is not 32 hexadecimal digits"):
            plan_from_json(json.dumps(document))

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda plan: plan["variants"].clear(), "must have exactly one baseline"),
            (lambda plan: plan["variants"][1].update(is_baseline=True), "must have exactly one baseline"),
            (lambda plan: plan["runs"][0].update(variant="other"), "runs of a variant that it lacks"),
            (lambda plan: plan["locked"].pop("metric"), "Field required @ locked.metric"),
            (lambda plan: plan["locked"].update(metric=3), "Input should be .* @ locked.metric"),
            (
                lambda plan: plan["study"].update(data=True),
                "should be an object @ data|should be a valid dictionary @ data",
            ),
        ],
    )
    def test_a_plan_with_a_part_missing_is_none(self, change: Callable[[Any], object], said: str) -> None:
        document = json.loads(plan_to_json(make_plan()))
        change(document)

        with pytest.raises(ValueError, match=said):
            plan_from_json(json.dumps(document))

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_a_plan_with_any_values_anywhere_is_a_plan_or_a_value_error(self, data: st.DataObject) -> None:
        document = json.loads(plan_to_json(make_plan(factors={"model.depth": (2, 3)}, seeds=1)))
        for _ in range(data.draw(st.integers(1, 3))):
            path = data.draw(st.sampled_from(positions(document)))
            put(document, path or ("study",), data.draw(STRUCTURES | st.just(...)))

        try:
            plan = plan_from_json(json.dumps(document))
        except ValueError:
            return
        assert plan.baseline in plan.variants
        assert plan.metrics

    def test_a_recorded_study_whose_name_leads_elsewhere_is_a_sentence(
        self, tmp_path: Path, command: Callable[..., Any], store_uri: str
    ) -> None:
        plan = make_plan()
        tracker = open_mlflow(store_uri)
        tracker.open_study(dataclasses.replace(plan, study={**plan.study, "name": "../../owned"}))

        for words in (("status",), ("summarize", "../../owned", "--output", "report"), ("export", "../../owned")):
            result = command(*words)
            assert (2, "Traceback" in result.output) == (result.exit_code, False)
            assert "'../../owned' cannot be the name of a study" in result.stderr
        assert not (tmp_path / "report").exists()


def test_a_study_writes_below_its_state_folder_and_nowhere_else(bench: Bench, tmp_path: Path) -> None:
    study = parse_study(
        TINY,
        source="tiny.yaml",
        overrides=[
            Override(path="seeds", value=1),
            Override(path="factors", value={"model.depth": [1, 2]}),
            Override(path="model.remove", value=["../../../*dropout*"]),
        ],
        name=None,
    )
    names = {study.name, *(variant.name for variant in study.variants)}
    folders = [
        bench.state.report(study.name),
        bench.state.begun(study.name, "0").path,
        bench.state.tuning(study.name, "0").path,
    ]

    assert all(folder.resolve().is_relative_to(bench.state.folder.resolve()) for folder in folders)
    assert not any("/" in name for name in names)


HOSTILE = [
    *MARKUP,
    "\\input{/etc/passwd} \\write18{touch owned}",
    "$(touch owned) `touch owned`",
    "| a | b |\n| - | - |",
    "\x1b]0;owned\x07\x1b[2J",
    "\u202eevil\u2066",
    "=cmd|'/c calc'!A1",
    "a" * 3000,
]


class TestReports:
    @pytest.mark.parametrize("start", range(0, len(HOSTILE), 5))
    def test_names_levels_classes_and_errors_are_text_in_every_form(
        self, start: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if start:  # figures take most of the time; the words of one report's are enough
            monkeypatch.setattr("ablation.report.pictures_of", lambda _: defaultdict(tuple))
        texts = HOSTILE[start : start + 5]
        plan = make_plan(
            description="\n\n".join(texts),
            factors={"[a](javascript:b)<i>": ("plain", *texts)},
            classes=tuple(texts[:4]),
            seeds=2,
            deviations=tuple(texts),
        )
        analysis = analyse(plan, hostile_runs(plan, texts))

        markdown, latex = report_text(analysis, "markdown"), report_text(analysis, "latex")

        rows = rows_html(
            first_screen(analysis), analysis, address=lambda run_id: f"https://example.org/{texts[0]}{run_id}"
        )
        for answers in (Markup(), rows):
            page = Page(html_document(markdown, title=texts[0], pictures={}, answers=answers))
            check_harmless(page)
            outside = [link for link in page.all("a") if str(link.attributes["href"])[0] not in "#"]
            assert all(str(link.attributes["href"]).startswith("https://example.org/") for link in outside)
            assert bool(outside) == bool(answers)
        assert not {"\\input{/etc", "\\write18{touch"} & set(re.findall(r"\\\w+\{\W*\w+", latex))
        assert answers_text(analysis).replace("\n", "").isprintable()
        assert "\x1b" not in markdown + latex


def hostile_runs(plan: Plan, texts: Sequence[str]) -> list[RecordedRun]:
    """Return the runs of a plan, the last of each variant failed with a text as its error."""
    turns = itertools.cycle(texts)
    return [
        dataclasses.replace(run, outcome=Outcome.FAILED, error=next(turns), metrics={}, curves={}, confusion={})
        if run.planned.seed == 1 and run.planned.variant != plan.variants[0].name
        else dataclasses.replace(run, host=next(turns), commit=next(turns)[:200])
        for run in make_runs(plan)
    ]


def test_a_value_longer_than_mlflow_keeps_is_whole_in_the_runs_files_and_in_its_identity(tmp_path: Path) -> None:
    note = "x" * 20_000
    study, other = (
        parse_study(
            f"name: long\ndata: {{name: digits}}\nmodel: {{name: 'nets.py:build', width: 2, note: {text}}}\n"
            "factors: {model.width: [2, 3]}\nseeds: 1\n".encode(),
            source="long.yaml",
        )
        for text in (note, f"{note[1:]}y")
    )
    run = PlannedRun(identity="0" * 32, variant="width=2", seed=0)
    folder = RunFolder(path=tmp_path / "run")
    folder.take_over({}, is_resumable=True)

    write_configuration(folder, run, study.variants[0].settings)

    kept = json.loads((folder.artifacts / "configuration.json").read_text())
    assert (note, run.identity) == (kept["model"]["note"], kept["identity"])
    assert 2 == len({run_identity(one.variants[0].configuration, data_digest="d", seed=0) for one in (study, other)})
