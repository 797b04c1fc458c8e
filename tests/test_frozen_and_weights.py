"""Frozen modules stay as they are, as in a plain loop of PyTorch, and models start from the weights of a file."""

import copy
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from test_checkpoints import PATHS, Interruption, Kept, same
from torch import Tensor, nn
from torch.nn import functional
from trainings import (
    MODEL,
    SEED,
    SHAPE,
    alone,
    batches_of,
    begun,
    built_in,
    finished,
    make_data,
    run,
    settings_of,
)

from ablation.code import CodeFolders
from ablation.coordinator.conclusion import keep_code
from ablation.coordinator.planning import measured_models
from ablation.errors import ComponentInvalid, ModelInvalid, StudyFileError
from ablation.models import build_model, load_weights
from ablation.models.frozen import freeze
from ablation.records import ModelSettings
from ablation.study import parse_study
from ablation.training import Member

DATA = make_data()
ADAMW = {"optimizer": "adamw", "weight_decay": 0.1, "learning_rate": 0.01}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def frozen(*patterns: str) -> nn.Module:
    return freeze(built_in(dropout=0.0), patterns)


def plain_loop(model: nn.Module, fixed: nn.Module) -> dict[str, Tensor]:
    """Train all but a module, which is in evaluation mode, as one would by hand; return the weights."""
    model.to(memory_format=torch.channels_last)
    for parameter in fixed.parameters():
        parameter.requires_grad = False
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01, weight_decay=0.1, fused=True)
    for epoch in (1, 2):
        model.train()
        fixed.eval()
        for images, labels in batches_of(DATA, epoch=epoch):
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model.state_dict()


def equal(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> bool:
    return expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_training_with_a_frozen_module_equals_a_plain_loop_to_the_bit() -> None:
    model = begun(SEED, lambda: built_in(dropout=0.0))
    before = copy.deepcopy(model.state_dict())
    expected = plain_loop(model, model.get_submodule("blocks.block1"))

    _, result = run(begun(SEED, lambda: frozen("blocks.block1")), DATA, settings_of(**ADAMW))

    assert equal(expected, result.state)
    changed = {name for name, tensor in result.state.items() if not torch.equal(before[name], tensor)}
    assert changed == {name for name in before if not name.startswith("blocks.block1.")}


@pytest.mark.parametrize("path", ["graph", "grouped", "streams"])
def test_frozen_modules_stay_as_they_are_on_every_path_and_when_gone_on_with(path: str) -> None:
    train, count = PATHS[path]

    def members() -> list[Member]:
        made = [begun(seed, lambda: frozen("blocks.block1")) for seed in range(count)]
        chosen = settings_of(epochs=3, ema=0.5, optimizer="sgd", weight_decay=0.1)
        return [Member(model=model, data=DATA, settings=chosen, seed=seed) for seed, model in enumerate(made)]

    expected = [alone(one)[1] for one in members()]

    _, results = finished(train(members(), None))
    kept = Kept(until=2)
    with pytest.raises(Interruption):
        finished(train(members(), kept))
    _, again = finished(train(members(), kept))

    assert all(same(one, other) for one, other in zip(results, again, strict=True))
    for one, result, before in zip(expected, results, members(), strict=True):
        for name, weights in result.state.items():
            torch.testing.assert_close(weights, one.state[name], rtol=1e-3, atol=1e-3)
            is_kept = name.startswith("blocks.block1.")
            assert is_kept is torch.equal(weights, before.model.state_dict()[name]), name


def test_frozen_modules_are_in_evaluation_mode_whatever_the_model_is_put_into() -> None:
    model = copy.deepcopy(frozen("blocks.block1"))

    model.train()

    asleep = {name for name, module in model.named_modules() if not module.training}
    fixed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert asleep == {name for name, _ in model.named_modules() if f"{name}.".startswith("blocks.block1.")}
    assert fixed == {name for name, _ in model.named_parameters() if name.startswith("blocks.block1.")}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("blocks.block9", "the model has no component 'blocks.block9'; did you mean"),
        ("blocks.block1.pool", "'blocks.block1.pool' has no parameters, so nothing is frozen"),
        ("*", "'*' is the whole model: nothing is left to train"),
    ],
)
def test_what_freezes_nothing_or_everything_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(ComponentInvalid) as refused:
        frozen(pattern)

    assert str(refused.value).startswith(message)
    assert "model.frozen" == refused.value.path


def test_a_pattern_of_what_a_variant_lacks_freezes_the_rest() -> None:
    gone = "blocks.block1.activation"
    settings = ModelSettings(name="cnn", arguments=MODEL, remove=(gone,), frozen=(gone, "blocks.*"))

    model = build_model(settings, SHAPE)

    assert {name for name, one in model.named_parameters() if not one.requires_grad} == {
        name for name, _ in model.named_parameters() if name.startswith("blocks.")
    }


def test_a_model_starts_from_the_weights_of_its_file_whatever_the_seed(tmp_path: Path) -> None:
    saved = begun(5)
    torch.save(saved.state_dict(), tmp_path / "start.pt")

    model = load_weights(begun(6), "start.pt", code=CodeFolders(folders=(tmp_path,)))

    assert equal(saved.state_dict(), model.state_dict())


def hostile(folder: Path, name: str) -> str:
    """Make what a file of weights may not be."""
    state, file = begun(5).state_dict(), folder / "start.pt"
    first = next(iter(state))
    match name:
        case "missing":
            pass
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "large":
            with file.open("wb") as opened:
                opened.truncate(10 * 2**30)
        case "text":
            file.write_text("weights")
        case "code":
            torch.save(nn.Linear(2, 2), file)
        case "list":
            torch.save([1, 2], file)
        case "whole":
            torch.save({"model": state}, file)
        case "not finite":
            torch.save({**state, first: torch.full_like(state[first], torch.nan)}, file)
        case "other head":
            torch.save(built_in(dense=(9,)).state_dict(), file)
        case "less":
            torch.save({name: value for name, value in state.items() if name != first}, file)
        case _:
            torch.save({**state, "more": torch.ones(1)}, file)
    return "start.pt"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "is not there (looked in "),
        ("folder", "is a folder; name the file of a state dict"),
        ("pipe", "is no regular file; name the file of a state dict"),
        ("large", "has 10.0 GiB; a file of weights has at most 4 GiB"),
        ("text", "is no file of tensors alone, as torch.load(weights_only=True) reads it"),
        ("code", "is no file of tensors alone"),
        ("list", "holds list, not a mapping of names to tensors"),
        ("whole", "holds dict, not a mapping of names to tensors"),
        ("not finite", "has values that are not finite in 'blocks."),
        ("other head", "does not fit the model: it has dense.dense1.weight of shape (9, 48) for (8, 48)"),
        ("less", "does not fit the model: it lacks 'blocks."),
        ("more", "does not fit the model: the model has no 'more'"),
    ],
)
def test_a_file_that_holds_no_weights_of_the_model_is_refused_with_the_names(
    tmp_path: Path, what: str, message: str
) -> None:
    path = hostile(tmp_path, what)
    model = begun(6)
    before = copy.deepcopy(model.state_dict())

    with pytest.raises(ModelInvalid) as refused:
        load_weights(model, path, code=CodeFolders(folders=(tmp_path,)))

    assert message in str(refused.value)
    assert "model.weights" == refused.value.path
    assert equal(before, model.state_dict())


STUDY = b"""\
name: n
data: {name: digits}
model: {name: cnn, weights: start.pt}
factors: {model.frozen: [[], [blocks.block1]], model.weights: [start.pt, none]}
design: one-at-a-time
"""


def identities(folder: Path, content: bytes = STUDY) -> list[str]:
    study = parse_study(content, source="f", code=CodeFolders(folders=(folder,)))
    return [study.identity(variant, data_digest="d", seed=0) for variant in study.variants]


def test_a_run_is_identified_by_what_its_file_of_weights_holds_not_by_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "start.pt").write_bytes(b"one")
    (tmp_path / "more").mkdir()
    (tmp_path / "more/other.pt").write_bytes(b"one")
    before = identities(tmp_path)
    moved = identities(tmp_path, STUDY.replace(b"start.pt", b"more/other.pt"))
    (tmp_path / "start.pt").write_bytes(b"another")
    after = identities(tmp_path)

    assert before == moved
    assert 3 == len({*before})
    assert [False, False, True] == [one == other for one, other in zip(before, after, strict=True)]


def test_a_file_of_weights_is_brought_to_other_machines_and_stands_in_no_copy_of_the_code(tmp_path: Path) -> None:
    (tmp_path / "start.pt").write_bytes(b"one")
    study = parse_study(STUDY, source="f", code=CodeFolders(folders=(tmp_path,)))
    study.code.digest(study.code_names())

    keep_code(study, tmp_path / "code")

    assert {"start.pt": tmp_path / "start.pt"} == study.code.carried(study.code_names()).files
    assert not (tmp_path / "code").exists()


def test_an_argument_of_a_model_function_that_has_the_name_of_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("def build(weights=None): ...\n")
    content = STUDY.replace(b"name: cnn", b"name: 'm.py:build'")

    with pytest.raises(StudyFileError, match="has an argument of that name; give the argument another name"):
        identities(tmp_path, content)


def test_the_size_of_a_model_says_how_many_of_its_parameters_are_trained(tmp_path: Path) -> None:
    study = parse_study(STUDY, source="f", code=CodeFolders(folders=(tmp_path,)))

    sizes = measured_models(study, lambda _: SHAPE)

    whole, part = sizes["baseline"], sizes["frozen=blocks.block1"]
    first = sum(layer.parameters for layer in part.layers if layer.name.startswith("blocks.block1."))
    assert (None, whole.parameters - first) == (whole.trainable, part.trainable)
    assert (whole.parameters, whole.layers) == (part.parameters, part.layers)
