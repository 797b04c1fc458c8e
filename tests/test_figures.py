"""Holds the figures to the analysis they are drawn from: what is drawn, in equal bytes, whatever names and gaps."""

import html
import itertools
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

import ablation
from ablation.analysis.analysis_record import Analysis, CodeDescription, Cost, DataDescription, Diagnostics
from ablation.analysis.answer_records import (
    Answer,
    Effect,
    Interval,
    LevelChange,
    Look,
    MeasuredMetric,
    SeedDifference,
    Verdict,
    Wins,
)
from ablation.analysis.descriptive_records import (
    ConfusionDifference,
    ConfusionMatrix,
    Difference,
    FactorCell,
    FactorPair,
    MatchedLoss,
    SeedCurves,
    SeedValue,
    Spread,
    Timing,
    VariantCurves,
    VariantRow,
)
from ablation.drawing import BLUE, VERMILLION, line_width, save, text_of, wrapped, write_confusion
from ablation.report.figures import KINDS, draw_figures
from ablation.report.figures.light_svg import light_svg
from ablation.report.figures.panels import limits
from ablation.report.rows import first_screen
from ablation.study.labels import NO_LABELS
from ablation.study.level_names import level_text

ACCURACY = MeasuredMetric(name="test_accuracy", label="test accuracy", direction="maximize", unit="fraction")
LOSS = MeasuredMetric(name="test_loss", label="test loss", direction="minimize", unit="nats")
BRIER = MeasuredMetric(name="test_brier_score", label="Brier score on test", direction="minimize", unit="score")
CLASSES = ("airplane", "automobile", "bird", "cat")
FACTORS: Mapping[str, Sequence[Any]] = {"model.depth": (3, 4), "model.normalization": ("none", "batch")}
GRID: Mapping[str, Sequence[Any]] = {"model.depth": (3, 4, 5), "model.width": (4, 6, 12, 8)}
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = (
    "$x^{2$ \\N{BULLET} \\frac{1}{0}",
    "two\nlines\tand a tab",
    "a" * 5000,
    "M" * 5000,
    "a=1, " * 1000,
    "<script>alert(1)</script> ]]> -- &amp; &",
    "\x00\x07\x1b[31m red \ud800 \ufffe",
    "\u202eright to left \u05d0\u05d1\u05d2",
    "漢字と😀 and e\u0301",
    "",
)


def make_analysis(
    *,
    factors: Mapping[str, Sequence[Any]] = FACTORS,
    seeds: int = 3,
    epochs: int = 4,
    classes: tuple[str, ...] = CLASSES,
    metric: MeasuredMetric = ACCURACY,
    rename: Sequence[str] = (),
) -> Analysis:
    """Make the analysis of a full factorial study with plausible noise; `rename` names the variants."""
    noise = np.random.default_rng(7)
    levels = [dict(zip(factors, chosen, strict=True)) for chosen in itertools.product(*factors.values())]
    names = [
        ", ".join(f"{factor.rpartition('.')[2]}={level_text(level)}" for factor, level in of.items()) for of in levels
    ]
    names = [f"{name} {index}" for index, name in zip(range(len(names)), rename, strict=True)] if rename else names
    values = np.array([0.70 + 0.03 * sum(list(factors[f]).index(of[f]) for f in of) / len(of) for of in levels])[
        :, None
    ]
    values = values + 0.004 * noise.standard_normal((1, seeds)) + 0.005 * noise.standard_normal((len(levels), seeds))
    rows = [
        _row(name, of, values[index], index, metric) for index, (name, of) in enumerate(zip(names, levels, strict=True))
    ]
    rows = [replace(row, dominated_by=_dominating(row, rows, metric)) for row in rows]
    return Analysis(
        study={},
        name="depth",
        description="",
        plan_hash="0" * 64,
        data=DataDescription(
            name="cifar10",
            digest="0" * 64,
            train_images=50_000,
            test_images=10_000,
            classes=classes,
            largest_class_share=0.1,
        ),
        code=CodeDescription(commits=(), versions=()),
        heldout_split="test",
        seed_varies=("initialization",),
        deviations=(),
        seeds=seeds,
        locked_seeds=seeds,
        looks=(seeds,),
        look=1,
        planned_runs=len(rows) * seeds,
        most_runs=len(rows) * seeds,
        out_of_budget=None,
        labels=NO_LABELS,
        folds=None,
        alpha=0.05,
        collapse_margin=0.02,
        metric=metric,
        metrics=(ACCURACY, LOSS, BRIER),
        design="factorial",
        parts=(),
        tuning=(),
        rope=0.005,
        factors={factor: tuple(of) for factor, of in factors.items()},
        baseline=names[0],
        answers=tuple(_answers(factors, values, metric)),
        variants=tuple(rows),
        factor_pairs=tuple(_pairs(factors, rows)),
        curves=tuple(_curves(name, values[index], epochs, noise) for index, name in enumerate(names)),
        targets=(),
        matched_losses=tuple(_matched_loss(name) for name in names[1:]),
        best_epochs=(),
        confusion=tuple(
            ConfusionMatrix(variant=name, split=split, counts=_counts(len(classes), noise), run_ids=("r",) * seeds)
            for split in ("train", "test")
            for name in names
        ),
        confusion_differences=tuple(_confusion_difference(name, len(classes), seeds, noise) for name in names[1:]),
        disagreements=(),
        details=(),
        layers=(),
        diagnostics=_diagnostics(),
        cost=Cost(training_seconds=100.0, timed_runs=len(rows) * seeds),
    )


def _spread(values: Sequence[float]) -> Spread:
    numbers = [float(value) for value in values]
    return Spread(n=len(numbers), mean=float(np.mean(numbers)), sd=None, minimum=min(numbers), maximum=max(numbers))


def _timing(seconds: Sequence[float]) -> Timing:
    middle = float(np.median(seconds))
    return Timing(n=len(seconds), median=middle, spread=None, minimum=float(min(seconds)), maximum=float(max(seconds)))


def _row(name: str, levels: Mapping[str, Any], values: np.ndarray, index: int, metric: MeasuredMetric) -> VariantRow:
    seconds = [400 + 60 * (index % 7) + 5 * seed for seed in range(len(values))]
    return VariantRow(
        name=name,
        levels=levels,
        is_baseline=index == 0,
        planned=len(values),
        done=len(values),
        diverged=0,
        collapsed=0,
        failed=0,
        missing=0,
        spreads={metric.name: _spread(values), "training_seconds": _spread(seconds)},
        values=tuple(SeedValue(seed=seed, value=float(value), run_ids=("r",)) for seed, value in enumerate(values)),
        differences={metric.name: Difference(n=len(values), mean=0.01, interval=None)} if index else {},
        training=_timing(seconds),
        epoch=None,
        dominated_by=None,
        parameters=1000,
        flops=40_000_000 * (1 + index),
        run_ids=("r",),
    )


def _dominating(row: VariantRow, rows: Sequence[VariantRow], metric: MeasuredMetric) -> str | None:
    sign = 1 if metric.direction == "maximize" else -1

    def outcome(of: VariantRow) -> tuple[float, float]:
        return sign * of.spreads[metric.name].mean, -of.training.median

    better = [of.name for of in rows if of is not row and all(np.array(outcome(of)) >= outcome(row))]
    return better[0] if better else None


def _answers(factors: Mapping[str, Sequence[Any]], values: np.ndarray, metric: MeasuredMetric) -> list[Answer]:
    verdicts = itertools.cycle((Verdict.HELPS, Verdict.UNDECIDED, Verdict.NO_MEANINGFUL_DIFFERENCE, Verdict.HURTS))
    changes = [
        LevelChange(factor=factor, label=factor.rpartition(".")[2], before=levels[0], after=after)
        for factor, levels in factors.items()
        for after in levels[1:]
    ]
    asked = [*((change,) for change in changes), tuple(changes[:: max(1, len(changes) - 1)][:2])]
    pairs = zip(asked, verdicts, itertools.cycle(values[1:] - values[0] if len(values) > 1 else values))
    return [_answer(of, verdict, differences, metric) for of, verdict, differences in pairs]


def _answer(changes: tuple[LevelChange, ...], verdict: Verdict, values: np.ndarray, metric: MeasuredMetric) -> Answer:
    mean, n = float(np.mean(values)), len(values)
    interval = Interval(low=mean - 0.008, high=mean + 0.008, level=0.975) if n > 1 else None
    share = Interval(low=0.1, high=0.9, level=0.95)
    return Answer(
        changes=changes,
        at={},
        averaged_over={},
        metric=metric,
        is_primary=True,
        estimand="",
        rope=0.005,
        alpha=0.05,
        comparisons=2,
        is_grown=False,
        decisive_e_value=40.0,
        verdict=verdict,
        is_meaningful=None,
        differences=tuple(
            SeedDifference(seed=seed, difference=float(value), run_ids=("r", "s")) for seed, value in enumerate(values)
        ),
        effect=Effect(
            n=n,
            mean=mean,
            sd=0.004,
            interval=interval,
            e_value=None,
            detectable=None,
            skewness=None,
            wins=Wins(wins=n, ties=0, n=n, share=share),
        ),
        forecast=None,
        missing=(),
        instability=None,
        repeated_seeds=(),
        is_timed_apart=False,
        look=Look(
            number=1,
            seeds=n,
            looks=(n,),
            next=None,
            state="different" if verdict.is_decided else "open at the last look",
            alpha=0.025,
            is_floored=False,
            is_fragile=False,
            is_added=False,
            later_unstable=(),
        ),
        cost=None,
        simple_effects=(),
        crossed=None,
        seconds_per_seed=None,
    )


def _pairs(factors: Mapping[str, Sequence[Any]], rows: Sequence[VariantRow]) -> list[FactorPair]:
    return [
        FactorPair(
            first=first,
            second=second,
            cells=tuple(_cell({first: one, second: two}, rows) for one in factors[first] for two in factors[second]),
            interactions=(),
        )
        for first, second in itertools.combinations(factors, 2)
    ]


def _cell(levels: Mapping[str, Any], rows: Sequence[VariantRow]) -> FactorCell:
    found = [row for row in rows if all(row.levels[factor] == level for factor, level in levels.items())]
    means = np.mean([[value.value for value in row.values] for row in found], axis=0)
    values = tuple(SeedValue(seed=seed, value=float(value), run_ids=("r",)) for seed, value in enumerate(means))
    return FactorCell(levels=levels, values=values, mean=float(means.mean()))


def _curves(variant: str, values: np.ndarray, epochs: int, noise: np.random.Generator) -> VariantCurves:
    time = np.arange(1, epochs + 1)
    risen = 1 - np.exp(-time / (0.25 * epochs))
    series = [
        {
            "test_accuracy": 0.3 + (value - 0.3) * risen + 0.01 * noise.standard_normal(epochs),
            "test_loss": 1.9 - 1.05 * risen + 0.35 * (time / epochs) ** 2 + 0.03 * noise.standard_normal(epochs),
            "train_loss": 2.0 - 1.7 * risen + 0.02 * noise.standard_normal(epochs),
            "train_sample_loss": 1.9 - 1.65 * risen + 0.02 * noise.standard_normal(epochs),
        }
        for value in values
    ]
    curves = [{name: _points(found) for name, found in of.items()} for of in series]
    median = {name: _points(np.median([of[name] for of in series], axis=0)) for name in series[0]}
    seeds = [SeedCurves(seed=seed, run_id="r", is_diverged=False, curves=of) for seed, of in enumerate(curves)]
    return VariantCurves(variant=variant, seeds=tuple(seeds), median=median)


def _points(values: np.ndarray) -> tuple[tuple[int, float], ...]:
    return tuple((epoch, float(value)) for epoch, value in enumerate(values, start=1))


def _matched_loss(variant: str) -> MatchedLoss:
    difference = Difference(n=3, mean=-0.02, interval=None)
    losses = {"train_loss": 0.4, "heldout_loss": 0.9, "baseline_heldout_loss": 0.92}
    return MatchedLoss(variant=variant, **losses, difference=difference, run_ids=("r",))


def _counts(size: int, noise: np.random.Generator) -> tuple[tuple[int, ...], ...]:
    wrong = noise.integers(0, 60, (size, size)) * (noise.random((size, size)) < 0.6)
    return tuple(map(tuple, (wrong + np.eye(size, dtype=int) * 760).tolist()))


def _confusion_difference(variant: str, size: int, seeds: int, noise: np.random.Generator) -> ConfusionDifference:
    difference, floor = 0.012 * noise.standard_normal((size, size)), 0.004 + 0.004 * noise.random((size, size))
    return ConfusionDifference(
        variant=variant,
        split="test",
        n=seeds,
        difference=tuple(map(tuple, difference.tolist())),
        reseeding=tuple(map(tuple, floor.tolist())) if seeds > 1 else None,
        size=0.012,
        reseeding_size=0.006 if seeds > 1 else None,
        run_ids=("r",),
    )


def _diagnostics(hosts: tuple[str, ...] = ("bench",)) -> Diagnostics:
    lists = dict.fromkeys(("equal_seeds", "collapsed", "diverged", "missing", "skewed", "left_out", "damaged"), ())
    return Diagnostics(devices=("cpu",), hosts=hosts, **lists)


def only(kind: str, analysis: Analysis):
    """Return the one figure of a kind."""
    (drawing,) = KINDS[kind](analysis)
    return drawing.figure


def lines_named(axes, gid: str):
    return [line for line in axes.get_lines() if line.get_gid() == gid]


def extent(figure, artist):
    """Return where an artist is drawn, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return artist.get_window_extent(canvas.get_renderer())


def scored(answer, size: float):
    """Return an answer on a metric of no unit whose differences are of this size."""
    low, mean, high = (-5.11 * size, -4.28 * size, -3.45 * size)
    return replace(
        answer,
        metric=BRIER,
        rope=None,
        resolution=0.8 * size,
        effect=replace(answer.effect, mean=mean, interval=replace(answer.effect.interval, low=low, high=high)),
        differences=tuple(replace(each, difference=mean) for each in answer.differences),
    )


def thin_lines(axes):
    return [
        (path, colour)
        for lines in axes.collections
        if lines.get_gid() != "frame"
        for path, colour in zip(lines.get_segments(), lines.get_colors(), strict=True)
    ]


def without_runs(analysis: Analysis) -> Analysis:
    """Return the analysis as it is where every run failed."""
    rows = tuple(
        replace(row, done=0, failed=row.planned, spreads={}, values=(), differences={}) for row in analysis.variants
    )
    answers = tuple(
        replace(answer, verdict=Verdict.INCOMPLETE, effect=None, differences=()) for answer in analysis.answers
    )
    pairs = tuple(
        replace(pair, cells=tuple(replace(cell, values=(), mean=None) for cell in pair.cells))
        for pair in analysis.factor_pairs
    )
    curves = tuple(replace(curves, seeds=(), median={}) for curves in analysis.curves)
    empty = {"confusion": (), "confusion_differences": (), "matched_losses": ()}
    return replace(analysis, variants=rows, answers=answers, factor_pairs=pairs, curves=curves, **empty)


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    return make_analysis()


@pytest.fixture(scope="module")
def written(analysis, tmp_path_factory):
    """Return the folder and the pictures of the analysis."""
    folder = tmp_path_factory.mktemp("written")
    return folder, draw_figures(analysis, folder)


def test_every_kind_is_written_as_svg_png_and_pdf(written):
    folder, pictures = written

    assert list(pictures) == list(KINDS)
    assert {"errors", "heat-map", "tuning"} == {kind for kind, drawn in pictures.items() if not drawn}
    shown = [picture for kind in pictures.values() for picture in kind]
    assert {Path(picture.svg).stem for picture in shown} == {
        "forest",
        "forest-column",
        "slope",
        "interaction",
        "test-accuracy",
        "test-loss",
        "train-loss",
        "seeds-test-accuracy",
        "trajectories",
        "confusion-train",
        "confusion-test",
        "confusion-difference",
        "pareto",
    }
    files = {f"figures/{path.name}" for path in (folder / "figures").iterdir()}
    assert {path for picture in shown for path in (picture.svg, picture.png, picture.pdf)} == files
    assert all(picture.title and picture.text for picture in shown)


def test_equal_analyses_give_equal_bytes_whatever_the_users_matplotlibrc_says(written, tmp_path):
    with rc_context(
        {"font.size": 20, "axes.facecolor": "black", "svg.fonttype": "path", "pdf.fonttype": 3, "savefig.bbox": "tight"}
    ):
        draw_figures(make_analysis(), tmp_path)

    paths = sorted((written[0] / "figures").iterdir())
    assert len(paths) == 39
    for path in paths:
        assert path.read_bytes() == (tmp_path / "figures" / path.name).read_bytes(), path.name


def test_svg_is_well_formed_and_holds_no_script_link_or_date(written):
    for path in (written[0] / "figures").glob("*.svg"):
        root = ElementTree.parse(path).getroot()
        names = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert not names & {"script", "a", "foreignObject"}, path.name
        links = [value for element in root.iter() for name, value in element.attrib.items() if name.endswith("href")]
        assert all(link.startswith(("#", "data:image/png")) for link in links)
        assert not re.search(r"<dc:date>|Matplotlib v", path.read_text(encoding="utf-8"))


def test_texts_of_an_svg_are_texts_in_a_font_that_every_browser_has(written):
    files = [ElementTree.parse(path).getroot() for path in (written[0] / "figures").glob("*.svg")]
    texts = [text for file in files for text in file.iter("{http://www.w3.org/2000/svg}text")]

    assert any("test accuracy" in (text.text or "") for text in texts)
    assert {"'DejaVu Sans', 'Verdana', sans-serif"} == {file.get("font-family") for file in files}
    own = [text.get("style") for text in texts if "font-family" in text.get("style") or "font:" in text.get("style")]
    assert all("'DejaVu Sans'" in style and style.rstrip(";").endswith("sans-serif") for style in own)


def test_an_svg_is_as_it_was_drawn_but_for_what_is_not_seen(analysis, tmp_path):
    save(only("slope", analysis), tmp_path / "drawn.svg")
    drawn = (tmp_path / "drawn.svg").read_text(encoding="utf-8")
    light = light_svg(drawn)

    before, after = map(ElementTree.fromstring, (drawn, light))
    for tag in ("text", "path", "use"):
        pairs = list(zip(before.iter(f"{SVG}{tag}"), after.iter(f"{SVG}{tag}"), strict=True))
        assert pairs
        for one, other in pairs:
            assert one.text == other.text or tag != "text"
            assert re.sub(r"font-family: [^;]*(; )?", "", one.get("style", "")) == other.get("style", "")
            for name in ("x", "y", "d"):
                assert np.allclose(_numbers(one.get(name, "")), _numbers(other.get(name, "")), atol=0.011)
    assert len(light) < 0.75 * len(drawn)
    assert all(f"#{element.get('id')}" in light for element in after.iter() if element.get("id"))


def test_texts_of_a_light_svg_keep_their_letters():
    text = "a  b\n  c 1.23456 font-family: x; &lt;g/&gt; id=&quot;q&quot;"
    drawn = f'<g id="text_1">\n <text style="font-size: 7px">{text}</text>\n</g>'

    (found,) = ElementTree.fromstring(light_svg(f'<svg xmlns="{SVG[1:-1]}">{drawn}</svg>')).iter(f"{SVG}text")
    assert html.unescape(text) == found.text


def _numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", text)]


def test_a_pdf_embeds_its_fonts_as_publishers_take_them_and_has_no_date(written):
    for path in (written[0] / "figures").glob("*.pdf"):
        content = path.read_bytes()
        assert b"/FontFile2" in content, path.name
        assert b"/Type3" not in content, path.name
        assert not re.search(rb"/(CreationDate|ModDate|Producer|Creator)\b", content), path.name


def test_a_pdf_is_as_wide_as_its_figure(written, analysis):
    content = (written[0] / "figures/forest.pdf").read_bytes()
    (width,) = re.findall(rb"/MediaBox \[ 0 0 ([0-9.]+) ", content)

    assert float(width) == pytest.approx(72 * only("forest", analysis).get_size_inches()[0])


@pytest.mark.slow
def test_a_process_of_its_own_writes_the_same_pdf(written, tmp_path):
    """Sets of letters have another order in every process."""
    code = (
        "import sys; from pathlib import Path; from test_figures import make_analysis\n"
        "from ablation.report.figures import draw_figures\n"
        "draw_figures(make_analysis(), Path(sys.argv[1]), endings=('.pdf',))"
    )
    paths = os.pathsep.join((str(Path(__file__).parent), str(Path(ablation.__file__).parent.parent)))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True)

    for path in sorted((tmp_path / "figures").iterdir()):
        assert path.read_bytes() == (written[0] / "figures" / path.name).read_bytes(), path.name


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, len(HOSTILE), 4))
def test_a_name_neither_breaks_nor_resizes_a_figure(analysis, tmp_path, first):
    """Four names a drawing; what each is shown as is tested below."""
    names = [HOSTILE[(first + index) % len(HOSTILE)] for index in range(4)]
    factors = {names[0] or "empty": (1, names[1]), names[2] or "empty": (names[3], "b")}
    classes = tuple(f"{name}{index}" for index, name in enumerate(names))
    hostile = make_analysis(factors=factors, classes=classes, rename=names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_figures(hostile, tmp_path, endings=(".svg", ".pdf"))

    for path in (tmp_path / "figures").glob("*.svg"):
        ElementTree.parse(path)
    for kind in ("forest", "interaction", "pareto"):
        assert only(kind, hostile).get_size_inches()[0] == only(kind, analysis).get_size_inches()[0]
    for kind in ("slope", "trajectories", "confusion-difference"):
        usual, found = only(kind, analysis), only(kind, hostile)
        assert usual.get_size_inches()[0] == found.get_size_inches()[0]
        assert abs(usual.get_size_inches()[1] - found.get_size_inches()[1]) < 1.2


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name[:12]))
def test_shown_names_are_short_single_lines_without_mathematics(name):
    assert "\n" not in text_of(name)
    assert text_of(name).isprintable()
    assert line_width(text_of(name).replace(r"\$", "$")) <= 34.6
    assert "$" not in text_of(name).replace(r"\$", "")
    assert len(wrapped(name).splitlines()) <= 3


def test_long_names_that_differ_at_their_ends_are_shown_unlike_each_other():
    names = [f"learning_rate_schedule_of_the_second_phase={level}" for level in ("short", "long")]

    assert len(set(map(text_of, names))) == 2


def test_names_of_usual_length_are_shown_whole():
    assert text_of("depth=3, normalization=batch") == "depth=3, normalization=batch"
    assert wrapped("model.depth=3, model.normalization=batch") == "model.depth=3,\nmodel.normalization=batch"


def test_a_study_without_results_has_no_figures(analysis, tmp_path):
    pictures = draw_figures(without_runs(analysis), tmp_path)

    assert pictures == dict.fromkeys(KINDS, ())
    assert list((tmp_path / "figures").iterdir()) == []


def test_a_study_whose_runs_all_diverged_has_no_figures(analysis, tmp_path):
    curves = tuple(
        replace(of, median={}, seeds=tuple(replace(seed, is_diverged=True) for seed in of.seeds))
        for of in analysis.curves
    )

    pictures = draw_figures(replace(without_runs(analysis), curves=curves), tmp_path)

    assert pictures == dict.fromkeys(KINDS, ())


@pytest.mark.slow
@pytest.mark.usefixtures("vector_figures")
@pytest.mark.parametrize(
    ("factors", "seeds", "epochs", "absent"),
    [
        (FACTORS, 1, 20, set()),
        (FACTORS, 3, 1, set()),
        (FACTORS, 1, 1, set()),
        ({"model.depth": (3, 4)}, 2, 2, {"interaction"}),
        ({"model.depth": (3,)}, 2, 2, {"slope", "interaction", "confusion-difference", "pareto"}),
    ],
)
def test_tiny_studies_are_drawn(tmp_path, factors, seeds, epochs, absent):
    tiny = make_analysis(factors=factors, seeds=seeds, epochs=epochs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures = draw_figures(tiny, tmp_path)

    assert {kind for kind, shown in pictures.items() if not shown} - {
        "errors",
        "forest",
        "tuning",
        "heat-map",
    } == absent


@pytest.mark.slow
@pytest.mark.usefixtures("vector_figures")
def test_diverged_runs_of_any_size_do_not_flatten_the_others(analysis, tmp_path):
    first, *others = analysis.curves
    wild = dict.fromkeys(first.seeds[0].curves, ((1, 1e300), (2, -1e300)))
    diverged = replace(first.seeds[0], is_diverged=True, curves=wild)
    mixed = replace(analysis, curves=(replace(first, seeds=(diverged, *first.seeds[1:])), *others))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_figures(mixed, tmp_path)

    for kind in ("curves", "seed-curves"):
        usual = [drawing.figure.axes[0].get_ylim() for drawing in KINDS[kind](analysis)]
        found = [drawing.figure.axes[0].get_ylim() for drawing in KINDS[kind](mixed)]
        assert np.allclose(usual, found, rtol=0.1)
    assert "1 diverged" in only("seed-curves", mixed).axes[0].get_title(loc="left")


@pytest.mark.parametrize("kind", ["forest", "forest-column"])
def test_forest_draws_the_rows_with_every_seed_mean_interval_and_band_in_points(kind, analysis):
    (group,) = first_screen(analysis).groups
    figure = only(kind, analysis)
    axes = figure.axes[0]

    drawn = zip(
        group.rows, *(lines_named(axes, gid) for gid in ("seeds", "mean", "interval")), axes.patches, strict=True
    )
    for row, seeds, mean, interval, band in drawn:
        assert list(seeds.get_xdata()) == [dot.value for dot in row.dots]
        assert list(mean.get_xdata()) == [row.mean]
        assert list(interval.get_xdata()) == [row.low, row.high]
        assert (band.get_x(), band.get_width()) == (-0.5, 1.0)
        assert band.get_y() < mean.get_ydata()[0] < band.get_y() + band.get_height()
    words = " ".join(text.get_text() for text in figure.texts if text.get_gid() == "verdict")
    assert words == " ".join(f"{row.mark.shape} {row.verdict}" for row in group.rows)


def test_forest_names_unit_and_better_side_of_each_metric(analysis):
    brier = replace(analysis.answers[0], metric=BRIER, is_primary=False)
    figure = only("forest", replace(analysis, answers=(*analysis.answers, brier)))

    accuracy, points, score, lower = [text.get_text() for text in figure.texts if text.get_gid() == "heading"]
    assert (accuracy, score) == ("test accuracy", "Brier score on test")
    assert points.startswith("points; band: too small to matter (±0.5)")
    assert points.endswith("better to the right")
    assert lower.endswith("better to the left")


def test_a_comparison_without_effect_keeps_its_verdict_in_the_forest(analysis):
    unstable = replace(analysis.answers[0], verdict=Verdict.UNSTABLE, effect=None, differences=())
    figure = only("forest", replace(analysis, answers=(unstable, *analysis.answers[1:])))

    assert "! unstable" in [text.get_text() for text in figure.texts]
    assert len(lines_named(figure.axes[0], "mean")) == len(analysis.answers) - 1


def test_bars_beyond_the_axis_of_a_forest_are_cut_and_end_in_arrows(analysis):
    effect = analysis.answers[0].effect
    wide = replace(analysis.answers[0], effect=replace(effect, interval=replace(effect.interval, low=-0.9, high=0.9)))
    axes = only("forest", replace(analysis, answers=(wide,))).axes[0]

    (bar,) = lines_named(axes, "interval")
    assert tuple(bar.get_xdata()) == axes.get_xlim()
    assert [line.get_marker() for line in lines_named(axes, "cut")] == ["<", ">"]


@pytest.mark.parametrize(("kind", "width"), [("forest", 6.75), ("forest-column", 3.3)])
def test_a_forest_is_as_wide_as_papers_print_it_and_has_no_text_below_six_points(kind, width, analysis):
    figure = only(kind, analysis)

    assert figure.get_size_inches()[0] == width
    labels = [label for axes in figure.axes for label in axes.get_xticklabels()]
    assert min(text.get_fontsize() for text in (*figure.texts, *labels)) >= 6


@pytest.mark.parametrize("kind", ["forest", "forest-column"])
@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("level", ["批归一化" * 8, "RESTARTS_AND_WARM_UP_" * 3, "Wm" * 30], ids=ascii)
def test_long_levels_end_before_what_stands_beside_them_and_lose_no_letter_in_a_forest(kind, level, analysis):
    answer = analysis.answers[0]
    renamed = replace(answer, changes=(replace(answer.changes[0], after=level),))
    figure = only(kind, replace(analysis, answers=(renamed,)))

    change = [text for text in figure.texts if text.get_gid() == "change"]
    beside = [text for text in figure.texts if text.get_gid() == "verdict"] if kind == "forest" else figure.axes
    assert level in "".join(text.get_text() for text in change)
    assert max(extent(figure, text).x1 for text in change) < min(extent(figure, each).x0 for each in beside)


@pytest.mark.parametrize("kind", ["forest", "forest-column"])
@pytest.mark.parametrize("size", [1e-13, 1.0, 1e296])
def test_numbers_of_any_size_have_room_beside_the_drawing_and_on_the_axis_of_a_forest(kind, size, analysis):
    figure = only(kind, replace(analysis, answers=(scored(analysis.answers[0], size),)))

    (axes,) = figure.axes
    numbers = [text for text in figure.texts if text.get_ha() == "right"]
    ticks = sorted((extent(figure, label) for label in axes.get_xticklabels()), key=lambda box: box.x0)
    assert min(extent(figure, text).x0 for text in numbers) > extent(figure, axes.patch).x1
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(ticks))
    assert axes.xaxis.get_offset_text().get_text() == ""


def test_the_rows_of_many_comparisons_are_two_pages_at_most(analysis):
    many = replace(analysis, answers=analysis.answers * 60)

    first, second = KINDS["forest"](many)
    shown = [len(lines_named(drawing.figure.axes[0], "seeds")) for drawing in (first, second)]
    assert shown == [40, 40]
    assert f"The figures show the first 80 of {len(many.answers)} comparisons." in first.text


@pytest.mark.parametrize("metric", [ACCURACY, LOSS], ids=lambda metric: metric.name)
def test_slopes_run_from_the_baselines_seed_to_the_variants_in_the_colour_of_better_or_worse(metric):
    analysis = make_analysis(metric=metric, seeds=8)
    baseline, *variants = analysis.variants
    scale = 100 if metric is ACCURACY else 1

    for axes, row in zip(only("slope", analysis).axes, variants, strict=True):
        for (path, colour), before, after in zip(thin_lines(axes), baseline.values, row.values, strict=True):
            assert path.tolist() == [[0, scale * before.value], [1, scale * after.value]]
            is_better = (after.value > before.value) == (metric.direction == "maximize")
            assert to_hex(colour) == (BLUE if is_better else VERMILLION).lower()
        (mean,) = lines_named(axes, "mean")
        assert list(mean.get_ydata()) == [scale * of.spreads[metric.name].mean for of in (baseline, row)]


def test_slopes_pair_seeds_by_number_and_leave_single_ones_as_dots(analysis):
    baseline, variant, *others = analysis.variants
    part = replace(variant, values=variant.values[1:])
    axes = only("slope", replace(analysis, variants=(baseline, part, *others))).axes[0]

    starts = [path[0][1] for path, _ in thin_lines(axes)]
    assert starts == [100 * value.value for value in baseline.values[1:]]
    assert [100 * baseline.values[0].value] in [list(line.get_ydata()) for line in axes.get_lines()]


def test_pareto_draws_means_and_ranges_and_a_front_of_what_nothing_dominates(analysis):
    axes = only("pareto", analysis).axes[0]
    rows = analysis.variants
    seconds = [row.spreads["training_seconds"].mean / 60 for row in rows]
    accuracy = [100 * row.spreads["test_accuracy"].mean for row in rows]

    drawn = [(line.get_xdata()[0], line.get_ydata()[0]) for line in lines_named(axes, "variant")]
    assert drawn == list(zip(seconds, accuracy, strict=True))
    (front,) = lines_named(axes, "front")
    kept = sorted((x, y) for x, y, row in zip(seconds, accuracy, rows, strict=True) if row.dominated_by is None)
    assert list(zip(*front.get_data(), strict=True)) == kept
    colours = [line.get_color() for line in lines_named(axes, "variant")]
    assert [colour == BLUE for colour in colours] == [row.dominated_by is None for row in rows]
    assert axes.get_xlabel() == "training time (min)"


@pytest.mark.parametrize("lack", ["mixed hosts", "no times", "a metric in seconds"])
def test_pareto_shows_flops_and_no_front_where_times_cannot_be_compared(analysis, lack):
    if lack == "mixed hosts":
        untimed = replace(analysis, diagnostics=_diagnostics(hosts=("one", "two")))
    elif lack == "no times":
        rows = [replace(row, training=None) for row in analysis.variants]
        untimed = replace(analysis, variants=tuple(rows))
    else:
        seconds = MeasuredMetric(name="training_seconds", label="seconds", direction="minimize", unit="seconds")
        untimed = replace(analysis, metric=seconds)
    axes = only("pareto", untimed).axes[0]

    assert axes.get_xlabel() == "FLOPs per image (million)"
    flops = [line.get_xdata()[0] for line in lines_named(axes, "variant")]
    assert np.allclose(flops, [row.flops / 1e6 for row in untimed.variants])
    assert lines_named(axes, "front") == []


def test_interaction_draws_a_line_of_means_per_level_and_every_seed(analysis):
    axes = only("interaction", analysis).axes[0]

    (pair,) = analysis.factor_pairs
    means = {tuple(cell.levels.values()): 100 * cell.mean for cell in pair.cells}
    drawn = [list(line.get_ydata()) for line in lines_named(axes, "mean")]
    assert drawn == [[means[depth, normalization] for depth in (3, 4)] for normalization in ("none", "batch")]
    assert sum(len(line.get_xdata()) for line in lines_named(axes, "seeds")) == 4 * 3
    assert {text.get_text() for text in axes.texts} == {"normalization none", "normalization batch"}


@pytest.mark.parametrize("factors", [FACTORS, GRID], ids=["few variants", "many variants"])
def test_all_medians_are_in_one_panel_with_a_band_between_the_quartiles_of_those_in_colour(factors):
    found = make_analysis(factors=factors, seeds=5)
    axes = next(KINDS["curves"](found)).figure.axes[0]

    medians = [[100 * value for _, value in curves.median["test_accuracy"]] for curves in found.curves]
    coloured = [list(line.get_ydata()) for line in lines_named(axes, "median")]
    thin = [lines for lines in axes.collections if isinstance(lines, LineCollection) and lines.get_gid() != "frame"]
    grey = [path[:, 1].tolist() for lines in thin for path in lines.get_segments()]
    assert sorted(medians) == sorted(coloured + grey)
    assert len(coloured) == len(axes.texts) == sum(lines.get_gid() == "band" for lines in axes.collections)
    first = [[value for _, value in seed.curves["test_accuracy"]] for seed in found.curves[0].seeds]
    band = next(lines for lines in axes.collections if lines.get_gid() == "band").get_paths()[0].vertices
    assert np.allclose(sorted({*band[:, 1]}), sorted({*(100 * np.quantile(first, (0.25, 0.75), axis=0)).ravel()}))


def test_of_many_variants_the_baseline_the_best_and_those_of_decided_answers_are_named():
    found = make_analysis(factors=GRID, seeds=5)
    drawing = next(KINDS["curves"](found))

    best = max(found.variants, key=lambda row: row.spreads["test_accuracy"].mean).name
    decided = {"model.depth": 4, "model.width": 4}
    changed = next(row.name for row in found.variants if row.levels == decided)
    assert found.answers[0].verdict is Verdict.HELPS
    assert {found.baseline, best, changed} <= {text.get_text() for text in drawing.figure.axes[0].texts}
    assert drawing.text.endswith(f"{12 - len(drawing.figure.axes[0].texts)} others grey.")


@pytest.mark.parametrize("metric", [ACCURACY, LOSS], ids=lambda metric: metric.name)
def test_factors_of_several_levels_are_a_heat_map_of_means_darker_where_better(metric):
    found = make_analysis(factors=GRID, metric=metric)
    axes = only("heat-map", found).axes[0]

    (pair,) = found.factor_pairs
    scale = 100 if metric is ACCURACY else 1
    means = {(cell.levels["model.width"], cell.levels["model.depth"]): scale * cell.mean for cell in pair.cells}
    (image,) = axes.images
    assert [[means[width, depth] for width in (4, 6, 8, 12)] for depth in (3, 4, 5)] == image.get_array().tolist()
    lightness = image.cmap([0.0, 1.0]).sum(axis=1)
    assert (lightness[1] < lightness[0]) == (metric.direction == "maximize")
    shown = [float(text.get_text()) for text in axes.texts]
    assert np.allclose(sorted(means.values()), sorted(shown), atol=0.5 if metric is ACCURACY else 0.005)
    assert [(-0.5, -0.5)] == [frame.get_xy() for frame in axes.patches]
    assert [] == list(KINDS["interaction"](found))


def test_a_combination_without_a_mean_is_a_dash_in_the_heat_map():
    found = make_analysis(factors=GRID)
    (pair,) = found.factor_pairs
    first, *others = pair.cells
    lacking = replace(pair, cells=(replace(first, values=(), mean=None), *others))

    texts = [text.get_text() for text in only("heat-map", replace(found, factor_pairs=(lacking,))).axes[0].texts]

    assert 1 == texts.count("–")
    assert 12 == len(texts)


def test_time_runs_to_the_right_along_trajectories(analysis):
    axes = only("trajectories", analysis).axes[1]

    left, right = axes.get_xlim()
    assert left > right
    median = dict(analysis.curves[1].median)
    last = (median["train_sample_loss"][-1][1], median["test_loss"][-1][1])
    assert last in [(line.get_xdata()[-1], line.get_ydata()[-1]) for line in axes.get_lines()]
    assert [0.4, 0.4] in [list(line.get_xdata()) for line in axes.get_lines()]


def test_confusion_differences_number_only_cells_beyond_twice_the_noise_floor(analysis):
    axes = only("confusion-difference", analysis).axes[0]

    found = analysis.confusion_differences[0]
    beyond = np.abs(found.difference) > 2 * np.asarray(found.reseeding)
    assert {text.get_position()[::-1] for text in axes.texts} == {tuple(cell) for cell in np.argwhere(beyond)}
    assert axes.images[0].get_clim()[0] == -axes.images[0].get_clim()[1]


@pytest.mark.slow
@pytest.mark.usefixtures("vector_figures")
def test_many_classes_are_drawn_without_numbers(tmp_path):
    many = make_analysis(classes=tuple(map(str, range(30))))

    assert draw_figures(many, tmp_path)["confusion"]
    for kind in ("confusion", "confusion-difference"):
        for drawing in KINDS[kind](many):
            assert not any(axes.texts for axes in drawing.figure.axes if axes.images)


def test_many_variants_fill_two_pages_and_the_text_says_what_is_left_out():
    drawings = list(KINDS["slope"](make_analysis(factors={"model.width": tuple(range(121))}, epochs=2)))

    assert [drawing.name for drawing in drawings] == ["slope", "slope-2"]
    assert [len(drawing.figure.axes) for drawing in drawings] == [24] * 2
    assert all(drawing.text.endswith("The figures show the first 48 of 120 variants.") for drawing in drawings)


def test_a_scale_holds_all_values_unless_few_lie_far_away():
    values = [float(value) for value in range(50)]

    low, high = limits(values)
    assert low < 0
    assert high > 49
    assert limits([*values, 1e9])[1] < 1000
    assert limits([0.0])[0] < 0 < limits([0.0])[1]


def test_one_runs_confusion_matrix_is_written_with_the_same_bytes_again(tmp_path):
    counts = [[9, 1], [2, 8]]
    for name in ("first.png", "second.png"):
        write_confusion(tmp_path / name, counts, ["$a", "b\n"], title="test split")

    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_saving_twice_gives_the_same_file(analysis, tmp_path):
    figure = only("forest", analysis)
    contents = []
    for _ in range(2):
        save(figure, tmp_path / "forest.svg")
        contents.append((tmp_path / "forest.svg").read_bytes())

    assert contents[0] == contents[1]
