"""Components of any model are listed as they are called, and removed or replaced so that nothing else changes."""

import copy
import dataclasses
import random
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor, nn

from ablation.errors import ComponentInvalid, ModelInvalid
from ablation.models import edit_model, list_components, replacement, summarize_model
from ablation.models.probe import probe_model
from ablation.models.removed import Removed
from ablation.records import Component, DataShape

SHAPE = DataShape(channels=3, height=8, width=8, classes=("a", "b"))
TOKENS = DataShape(channels=0, height=0, width=0, classes=("a", "b"), features=(5, 8))
IMAGENET = DataShape(channels=3, height=224, width=224, classes=tuple("abcde"))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.BatchNorm2d(inputs)
        self.activation = nn.ReLU(inplace=True)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        shortcut = self.shortcut(images)
        changed = self.convolution(self.activation(self.norm(images)))
        changed += shortcut
        return changed


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.blocks = nn.ModuleList([Block(4, 4), Block(4, 6), Block(6, 6)])
        self.head = nn.Linear(6, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        for block in self.blocks:
            features = block(features)
        return self.head(features.mean((2, 3)))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation=nn.ReLU(), dropout=0.1)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(tokens).mean(1))


class Sequence2(nn.Module):
    """Holds whatever it is given and calls it in order, then a head."""

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.order = list(modules)
        self.head = nn.Linear(8, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        for name in self.order:
            tokens = getattr(self, name)(tokens)
        return self.head(tokens.mean(1))


def built(build: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build()


def edited(
    build: Callable[[], nn.Module] = Residual,
    *,
    remove: Sequence[str] = (),
    replace: Mapping[str, Callable[[nn.Module], nn.Module]] | None = None,
    shape: DataShape = SHAPE,
) -> nn.Module:
    return edit_model(built(build), torch.zeros(1, *shape.input_shape), remove=remove, replace=replace or {})


def refused(**options: Any) -> ComponentInvalid:
    with pytest.raises(ComponentInvalid) as caught:
        edited(**options)
    return caught.value


def components(build: Callable[[], nn.Module], shape: DataShape = SHAPE) -> dict[str, Component]:
    return {component.name: component for component in list_components(build, shape)}


RESIDUAL = components(Residual)


@settings(deadline=None, max_examples=30)
@given(name=some.sampled_from([name for name, component in RESIDUAL.items() if component.is_removable]))
def test_removing_any_removable_component_keeps_the_output_shape_and_every_other_weight(name: str) -> None:
    whole = built(Residual).state_dict()

    model = edited(remove=[name])

    left = model.state_dict()
    assert {key for key in whole if not key.startswith(f"{name}.")} == set(left)
    assert all(torch.equal(whole[key], value) for key, value in left.items())
    assert (5, 2) == model(torch.randn(5, 3, 8, 8)).shape


@settings(deadline=None, max_examples=30)
@given(
    names=some.sets(
        some.sampled_from([name for name, component in RESIDUAL.items() if component.is_removable]), min_size=1
    )
)
def test_any_removable_components_leave_a_model_that_trains(names: set[str]) -> None:
    model = edited(remove=sorted(names))
    model.train()(torch.randn(5, 3, 8, 8)).square().sum().backward()

    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_removed_block_is_the_identity() -> None:
    images = torch.randn(2, 3, 8, 8)

    model = edited(remove=["blocks.0"]).eval()

    whole = built(Residual).eval()
    features = whole.blocks[2](whole.blocks[1](whole.stem(images)))
    assert torch.equal(whole.head(features.mean((2, 3))), model(images))


def test_what_is_written_to_after_a_removal_is_a_copy() -> None:
    images = torch.randn(2, 3, 8, 8)

    model = edited(remove=["blocks.0.norm", "blocks.0.convolution"]).eval()

    whole = built(Residual).eval()
    features = whole.stem(images)
    expected = whole.blocks[2](whole.blocks[1](features.clamp(min=0) + features))
    assert torch.equal(whole.head(expected.mean((2, 3))), model(images))


def test_probing_leaves_modes_buffers_and_random_numbers_as_they_were() -> None:
    class Counting(Residual):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, images: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(images + torch.rand(()))

    model = built(Counting)
    model.blocks[1].eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    before = torch.get_rng_state()

    probe = probe_model(model, torch.zeros(1, 3, 8, 8))

    assert probe.error is None
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert (True, False, False) == (model.training, model.blocks[1].training, model.blocks[1].norm.training)


def test_components_are_listed_in_order_with_what_they_cost() -> None:
    assert ["stem", "blocks", "blocks.0", "blocks.0.convolution"] == list(RESIDUAL)[:4]
    assert (
        Component(
            name="blocks.0",
            type="Block",
            parameters=4 * 4 * 9 + 4 + 8,
            flops=2 * 4 * 4 * 9 * 64,
            input_shape=(4, 8, 8),
            output_shape=(4, 8, 8),
            is_removable=True,
            reason="",
        )
        == RESIDUAL["blocks.0"]
    )
    assert RESIDUAL["blocks.1"].reason == "it changes the shape, (4, 8, 8) -> (6, 8, 8)"
    assert RESIDUAL["blocks"].reason == "it is never called, only modules inside it are"
    assert RESIDUAL["blocks"].input_shape is None
    assert RESIDUAL["blocks.0.shortcut"].reason == "it does nothing already"


@pytest.mark.parametrize("module", [nn.Identity(), nn.Dropout(0.0), nn.AdaptiveAvgPool1d(8)], ids=repr)
def test_what_does_nothing_is_not_removable(module: nn.Module) -> None:
    found = components(lambda: Sequence2(idle=module, dropout=nn.Dropout(0.1)), TOKENS)

    assert "it does nothing already" == found["idle"].reason
    assert found["dropout"].is_removable


def test_a_wildcard_passes_over_what_does_nothing() -> None:
    def build() -> nn.Module:
        return Sequence2(drop1=nn.Identity(), drop2=nn.Dropout(0.1))

    model = edited(build, remove=["drop*"], shape=TOKENS)

    assert isinstance(model.drop1, nn.Identity)
    assert "Removed(Dropout)" == repr(model.drop2)


def test_an_edited_model_can_be_copied_and_keeps_its_state() -> None:
    model = edited(remove=["blocks.0"])

    again = edited(remove=["blocks.0"])
    again.load_state_dict(copy.deepcopy(model).state_dict())

    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(model.eval()(images), copy.deepcopy(again).eval()(images))


def test_flops_of_the_components_add_up_to_the_models() -> None:
    parts = sum(RESIDUAL[name].flops for name in ("stem", "blocks.0", "blocks.1", "blocks.2", "head"))

    assert parts == summarize_model(Residual, SHAPE).flops


def test_of_nested_matches_the_outermost_is_removed() -> None:
    outer, both = edited(remove=["blocks.0"]), edited(remove=["blocks.0*", "blocks.0.norm"])

    assert list(outer.state_dict()) == list(both.state_dict())


def test_wildcards_remove_every_match() -> None:
    model = edited(remove=["*.norm"])

    assert not any("norm" in name for name, _ in model.named_parameters())


def test_components_that_undo_each_others_change_of_shape_are_removed_together() -> None:
    def build() -> nn.Module:
        return Sequence2(up=nn.Linear(8, 12), activation=nn.ReLU(), down=nn.Linear(12, 8))

    model = edited(build, remove=["up", "activation", "down"], shape=TOKENS)

    assert ["head.weight", "head.bias"] == list(model.state_dict())


def test_components_that_change_the_shape_together_are_refused() -> None:
    error = refused(remove=["blocks.1", "stem"])

    assert "'blocks.1' (Block) cannot be removed: it changes the shape, (4, 8, 8) -> (6, 8, 8)" in str(error) or (
        "'stem' (Conv2d) cannot be removed" in str(error)
    )


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("blocks.7", "the model has no component 'blocks.7'; did you mean 'blocks."),
        ("layer*", "the model has no component 'layer*'; "),
        (
            "blocks.1",
            "'blocks.1' (Block) cannot be removed: it changes the shape, (4, 8, 8) -> (6, 8, 8); removable here: "
            "blocks.0, blocks.2, blocks.0.convolution, ",
        ),
        (
            "*.1.c*",
            "'blocks.1.convolution' (Conv2d), which '*.1.c*' matches, cannot be removed: it changes the shape, ",
        ),
        ("blocks", "'blocks' (ModuleList) cannot be removed: it is never called, only modules inside it are; "),
        ("", "'' is the whole model; name a part of it"),
        ("blocks.0.shortcut", "'blocks.0.shortcut' (Identity) cannot be removed: it does nothing already; "),
    ],
)
def test_what_cannot_be_removed_is_said_with_what_can(pattern: str, said: str) -> None:
    error = refused(remove=[pattern])

    assert str(error).startswith(said)
    assert str(error).endswith(" @ model.remove")
    assert error.path == "model.remove"


def test_removing_all_that_learns_is_refused() -> None:
    error = refused(build=lambda: nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), remove=["*"], shape=TOKENS)

    assert str(error) == "'*' is the whole model: nothing is left to train @ model.remove"


def test_a_module_with_two_names_is_removed_under_both() -> None:
    def build() -> nn.Module:
        shared = nn.Linear(8, 8)
        return Sequence2(first=shared, between=nn.ReLU(), second=shared)

    by_first, by_second = (edited(build, remove=[name], shape=TOKENS) for name in ("first", "second"))

    assert ["head.weight", "head.bias"] == list(by_first.state_dict()) == list(by_second.state_dict())
    assert by_first.first is by_first.second
    assert ["first", "between", "head"] == list(components(build, TOKENS))


def test_a_module_that_is_called_by_another_way_than_its_name_is_refused() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(8, 8), nn.Linear(8, 2)
            self.plain = [self.layer]

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.plain[0](tokens).mean(1))

    error = refused(build=Hidden, remove=["layer"], shape=TOKENS)

    assert str(error) == (
        "'layer' cannot be removed: the model calls 'layer' by another way than this name @ model.remove"
    )


def test_what_fails_without_the_component_is_said() -> None:
    class Reading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            attended, weights = self.attention(tokens, tokens, tokens)
            return self.head(attended.mean(1) + weights.mean())

    error = refused(build=Reading, remove=["attention"], shape=TOKENS)

    assert str(error).startswith("'attention' cannot be removed: the forward pass then fails AttributeError: ")


@pytest.mark.parametrize("outputs", [tuple, list], ids=["tuple", "list"])
def test_what_returned_several_things_returns_the_first_and_none(outputs: type) -> None:
    class Several(nn.Module):
        def forward(self, tokens: Tensor) -> Any:
            return outputs([tokens + 1, tokens, 3])

    class Picking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.several, self.head = Several(), nn.Linear(8, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.several(tokens)[0].mean(1))

    model = edited(Picking, remove=["several"], shape=TOKENS)

    tokens = torch.randn(1, 5, 8)
    assert outputs([tokens, None, None]) == model.several(tokens)


def test_what_returned_a_dictionary_returns_its_first_item_and_none() -> None:
    class Named(nn.Module):
        def forward(self, *, tokens: Tensor) -> dict[str, Tensor]:
            return {"states": tokens * 2, "other": tokens.mean()}

    class Picking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.named, self.head = Named(), nn.Linear(8, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.named(tokens=tokens)["states"].mean(1))

    model = edited(Picking, remove=["named"], shape=TOKENS)

    tokens = torch.randn(1, 5, 8)
    assert {"states": tokens, "other": None} == model.named(tokens=tokens)


@dataclasses.dataclass
class Answer(OrderedDict):
    """A mapping and a dataclass in one that none can change in place, as the models of Hugging Face return."""

    loss: Any = None
    states: Any = None
    weights: Any = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None:
                super().__setitem__(field.name, value)

    def _refused(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("an answer is not changed in place")

    update = pop = setdefault = __delitem__ = _refused


@dataclasses.dataclass(frozen=True)
class Frozen:
    states: Any
    loss: Any = None
    weights: Any = None
    count: int = dataclasses.field(default=0, init=False)


class Pair(NamedTuple):
    states: Any
    weights: Any


class Asking(Mapping[str, Any]):
    """A mapping that is made of something other than its items."""

    def __init__(self, states: Any, weights: Any, *, asked: int) -> None:
        self._items = {"states": states, "weights": weights}

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def answering(answer: Callable[[Tensor, Tensor], Any], pick: Callable[[Any], Tensor]) -> Callable[[], nn.Module]:
    """Return what builds a model one of whose modules answers so with states and weights; `pick` finds the states."""

    class Several(nn.Module):
        def forward(self, tokens: Tensor) -> Any:
            return answer(tokens + 1, tokens.mean())

    class Picking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.several, self.block, self.head = Several(), Same(), nn.Linear(8, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.block(pick(self.several(tokens))).mean(1))

    class Same(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return tokens * 2

    return Picking


MADE: Mapping[str, Callable[[Any, Any], Any]] = {
    "mapping and dataclass": lambda states, weights: Answer(states=states, weights=weights),
    "frozen dataclass": lambda states, weights: Frozen(states=states, weights=weights),
    "named tuple": Pair,
    "namespace": lambda states, weights: SimpleNamespace(states=states, weights=weights),
    "UserDict": lambda states, weights: UserDict(states=states, weights=weights),
    "mappingproxy": lambda states, weights: MappingProxyType({"states": states, "weights": weights}),
    "defaultdict": lambda states, weights: defaultdict(None, states=states, weights=weights),
}


def states_of(answer: Any) -> Tensor:
    return answer["states"] if isinstance(answer, Mapping) else answer.states


@pytest.mark.parametrize("answer", MADE.values(), ids=MADE)
def test_what_returned_outputs_in_whatever_they_came_in_returns_its_first_in_the_same(
    answer: Callable[[Any, Any], Any],
) -> None:
    model = edited(answering(answer, states_of), remove=["several"], shape=TOKENS)

    tokens = torch.randn(1, 5, 8)
    given = model.several(tokens)
    assert type(answer(tokens, None)) is type(given)
    assert states_of(given) is tokens
    assert (given.get("weights") if isinstance(given, Mapping) else given.weights) is None


def test_an_answer_that_only_its_own_code_can_make_hinders_nothing_but_its_own_removal() -> None:
    build = answering(lambda states, weights: Asking(states, weights, asked=1), states_of)

    listed = components(build, TOKENS)
    model = edited(build, remove=["block"], shape=TOKENS)
    error = refused(build=build, remove=["several"], shape=TOKENS)

    assert (5, 8) == listed["several"].output_shape
    assert isinstance(model.block, Removed)
    assert str(error).startswith(
        "'several' (Several) cannot be removed: what it returns, Asking cannot be made of other tensors; removable here"
    )


def test_an_answer_that_holds_itself_is_looked_into_no_further_than_needed() -> None:
    def looped(states: Tensor, weights: Tensor) -> Any:
        answer = SimpleNamespace(loop=None)
        answer.loop, answer.states = answer, states
        return answer

    assert (5, 8) == components(answering(looped, states_of), TOKENS)["several"].output_shape


ENCODER = components(Encoder, TOKENS)


def test_attention_is_removable_and_what_only_lends_its_weights_is_not() -> None:
    assert ENCODER["encoder.layers.0.self_attn"].is_removable
    assert ENCODER["encoder.layers.0"].is_removable
    assert ENCODER["encoder.layers.0.self_attn.out_proj"].reason == (
        "it is never called, if anything its weights are used"
    )


@pytest.mark.parametrize("name", [name for name, component in ENCODER.items() if component.is_removable])
def test_torchs_encoder_without_a_part_trains_and_is_evaluated_alike(name: str) -> None:
    model = edited(Encoder, remove=[name], shape=TOKENS)
    tokens = torch.randn(3, 5, 8)

    model.train()(tokens).sum().backward()
    with torch.no_grad():
        evaluated = model.eval()(tokens)

    assert torch.allclose(evaluated, model.eval()(tokens), atol=1e-6)


def test_a_replaced_activation_of_torchs_encoder_is_used_when_it_is_evaluated() -> None:
    tokens = torch.randn(3, 5, 8)

    model = edited(Encoder, replace={"*.activation": replacement("SiLU")}, shape=TOKENS).eval()

    with torch.no_grad():
        fused = model(tokens)
    assert torch.allclose(fused, model(tokens), atol=1e-6)
    assert not torch.allclose(fused, built(Encoder).eval()(tokens), atol=1e-4)


def test_replacements_take_the_place_of_every_match_and_change_nothing_else() -> None:
    whole = built(Residual).state_dict()

    model = edited(replace={"*.activation": replacement("GELU")})

    assert [nn.GELU] * 3 == [type(block.activation) for block in model.blocks]
    assert all(torch.equal(whole[key], value) for key, value in model.state_dict().items())


def test_an_own_function_is_given_the_old_module() -> None:
    def grouped(old: nn.Module) -> nn.Module:
        assert isinstance(old, nn.BatchNorm2d)
        return nn.GroupNorm(2, old.num_features)

    model = edited(replace={"*.norm": grouped})

    assert [4, 4, 6] == [block.norm.num_channels for block in model.blocks]


def test_a_container_that_is_not_called_can_be_replaced() -> None:
    model = edited(replace={"blocks": lambda old: nn.ModuleList([old[0], old[1]])})

    assert 2 == len(model.blocks)


def test_what_is_replaced_by_the_identity_is_written_to_as_a_copy() -> None:
    removed = edited(remove=["blocks.0.convolution", "blocks.0.norm"]).eval()
    replaced = edited(replace={"blocks.0.[cn]o*": replacement("Identity")}).eval()
    images = torch.randn(2, 3, 8, 8)

    assert torch.equal(removed(images), replaced(images))


def fails(_old: nn.Module) -> nn.Module:
    raise ValueError("no such thing")


@pytest.mark.parametrize(
    ("replace", "said"),
    [
        (
            {"stem": lambda old: nn.Conv2d(3, 5, 3, padding=1)},
            "'stem' cannot be replaced so: 'stem' gave (4, 8, 8) and its replacement gives (5, 8, 8)",
        ),
        (
            {"stem": lambda old: nn.Conv2d(1, 4, 3, padding=1)},
            "'stem' cannot be replaced so: the forward pass then fails in 'stem': RuntimeError: ",
        ),
        ({"stem": fails}, "the replacement of 'stem' could not be built: ValueError: no such thing"),
        ({"stem": lambda old: "conv"}, "the replacement of 'stem' is a str; return a torch.nn.Module"),
        (
            {"*.activation": lambda old: nn.ReLU(inplace=True)},
            "'blocks.0.activation' is replaced by what it is, ReLU(inplace=True), so nothing changes; ",
        ),
        ({"stem": lambda old: old}, "'stem' is replaced by what it is, Conv2d(3, 4, "),
        ({"blok.0": replacement("GELU")}, "the model has no component 'blok.0'; did you mean 'blocks.0"),
        (
            {"blocks.0": replacement("Identity"), "*.norm": replacement("Identity"), "*.0.norm": replacement("GELU")},
            "'blocks.0.norm' is matched by both '*.norm' and '*.0.norm'; let one of them replace it",
        ),
        (
            {"blocks.0": replacement("Identity"), "*.0.norm": replacement("GELU")},
            "what '*.0.norm' matches is removed, or is inside another replaced component: ",
        ),
    ],
)
def test_a_replacement_that_cannot_be_is_said(replace: dict[str, Any], said: str) -> None:
    error = refused(replace=replace)

    assert str(error).startswith(said)
    assert str(error).endswith(" @ model.replace")


def test_what_is_removed_cannot_be_replaced() -> None:
    error = refused(remove=["blocks.0"], replace={"blocks.0": replacement("GELU")})

    assert str(error).startswith("what 'blocks.0' matches is removed, ")


def test_a_module_that_only_lends_its_weights_is_not_replaced() -> None:
    error = refused(build=Encoder, replace={"*.0.self_attn.out_proj": lambda old: nn.Linear(8, 8)}, shape=TOKENS)

    assert "it is never called, if anything its weights are used" in str(error)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gelu", "torch.nn has no module 'gelu'; did you mean 'GELU'"),
        ("Parameter", "torch.nn has no module 'Parameter'; "),
        ("Conv2d", "torch.nn.Conv2d needs in_channels, out_channels, kernel_size, which differ from place to place; "),
        ("functional", "torch.nn has no module 'functional'; "),
    ],
)
def test_a_replacement_by_name_says_what_it_lacks(name: str, said: str) -> None:
    with pytest.raises(ComponentInvalid) as caught:
        replacement(name)

    assert str(caught.value).startswith(said)
    assert str(caught.value).endswith(" @ model.replace")


class ByValue(Residual):
    """Computes with values while it is built and when it is run."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = float(torch.linspace(0, 1, 3)[1])

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images * self.scale) * (1 if images.sum() > 1 else 2)


class ByValueEncoder(Encoder):
    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens) * (1 if tokens.sum() > 1 else 2)


@pytest.mark.parametrize(
    ("build", "by_value", "shape"),
    [(Residual, ByValue, SHAPE), (Encoder, ByValueEncoder, TOKENS)],
    ids=["residual", "encoder"],
)
def test_a_model_that_computes_with_values_is_measured_alike(
    build: Callable[[], nn.Module], by_value: Callable[[], nn.Module], shape: DataShape
) -> None:
    torch.manual_seed(3)
    random.seed(3)
    before = torch.get_rng_state()

    measured = summarize_model(by_value, shape)

    assert summarize_model(build, shape) == measured
    assert list_components(build, shape) == list_components(by_value, shape)
    assert torch.equal(before, torch.get_rng_state())


def test_a_recurrent_model_has_the_same_flops_on_either_device() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrence, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            states, _ = self.recurrence(tokens)
            return self.head(states.mean(1))

    class OnlyWithValues(Recurrent):
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens + tokens.sum().item())

    assert summarize_model(Recurrent, TOKENS) == summarize_model(OnlyWithValues, TOKENS)
    assert components(Recurrent, TOKENS)["recurrence"].is_removable


def test_layers_that_are_not_called_or_called_twice_or_give_several_are_measured() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(8))
            self.twice, self.unused = nn.Linear(8, 8), nn.Linear(8, 3)
            self.recurrence, self.head = nn.GRU(8, 4, batch_first=True), nn.LazyLinear(2)

        def forward(self, tokens: Tensor) -> dict[str, Tensor]:
            states, _ = self.recurrence(self.twice(self.twice(tokens * self.scale)))
            return {"logits": self.head(states.mean(1))}

    summary = summarize_model(Odd, TOKENS)

    shapes = {layer.name: layer.output_shape for layer in summary.layers}
    assert {"(model)": (2,), "twice": (5, 8), "unused": (), "recurrence": (5, 4), "head": (2,)} == shapes
    assert summary.parameters == sum(layer.parameters for layer in summary.layers)
    assert 8 + 72 + 27 + 3 * 4 * (8 + 4 + 2) + 10 == summary.parameters
    assert 2 * 5 * 64 * 2 + 2 * 5 * 12 * (8 + 4) + 2 * 8 == summary.flops


def test_a_model_that_fails_on_the_data_is_said_with_where_it_fails() -> None:
    wrong = DataShape(channels=4, height=8, width=8, classes=("a", "b"))

    with pytest.raises(ModelInvalid, match=r"example of shape \(4, 8, 8\): in 'stem': RuntimeError") as caught:
        summarize_model(Residual, wrong)

    assert caught.value.path == "model.name"


def test_resnets_blocks_are_removable_but_those_that_halve_the_image() -> None:
    found = components(lambda: torchvision.models.resnet18(num_classes=5), IMAGENET)

    blocks = {name: component for name, component in found.items() if component.type == "BasicBlock"}
    assert {"layer2.0", "layer3.0", "layer4.0"} == {name for name, block in blocks.items() if not block.is_removable}
    assert blocks["layer2.0"].reason == "it changes the shape, (64, 56, 56) -> (128, 28, 28)"
    assert found["layer1"].is_removable
    assert not found["layer2"].is_removable
    assert 2 * 2 * 64 * 64 * 9 * 56**2 == blocks["layer1.0"].flops


def test_vision_transformers_blocks_and_attention_are_removable() -> None:
    found = components(lambda: torchvision.models.vit_b_16(num_classes=5), IMAGENET)

    assert all(found[f"encoder.layers.encoder_layer_{block}"].is_removable for block in range(12))
    assert all(found[f"encoder.layers.encoder_layer_{block}.self_attention"].is_removable for block in range(12))
    assert not found["encoder.layers.encoder_layer_0.self_attention.out_proj"].is_removable
    assert not found["conv_proj"].is_removable
    tokens, width = 197, 768
    attention = 2 * tokens * width * 4 * width + 2 * 2 * tokens * tokens * width
    assert attention == found["encoder.layers.encoder_layer_0.self_attention"].flops


def test_a_vision_transformer_without_a_block_can_be_edited_on_the_meta_device() -> None:
    def whole() -> nn.Module:
        return torchvision.models.VisionTransformer(
            image_size=16, patch_size=8, num_layers=6, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=5
        )

    def build() -> nn.Module:
        remove = ["encoder.layers.encoder_layer_3", "*_layer_5.self_attention"]
        replace = {"*.mlp.1": replacement("ReLU")}
        return edit_model(whole(), torch.zeros(1, 3, 16, 16), remove=remove, replace=replace)

    shape = DataShape(channels=3, height=16, width=16, classes=tuple("abcde"))
    attention = 4 * 8 * 8 + 4 * 8
    block = attention + 2 * 8 * 16 + 16 + 8 + 2 * 2 * 8
    assert summarize_model(whole, shape).parameters - block - attention == summarize_model(build, shape).parameters
