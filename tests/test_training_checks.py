"""What a study file says of optimizers, schedules and losses is refused in its own words, at the key at fault."""

from typing import Any

import pytest

from ablation.errors import StudyFileError
from ablation.study import Study, parse_study

FACTORS = "model.depth: [3, 4]"


def study(training: str, *, factors: str = FACTORS, further: str = "", data: str = "name: digits") -> Study:
    sections = f"data: {{{data}}}\nmodel: {{name: cnn}}\ntraining: {{{training}}}\nfactors: {{{factors}}}"
    text = f"name: n\n{sections}\n{further}\n"
    return parse_study(text.encode(), source="f.yaml")


def refusals(training: str, **changes: str) -> list[str]:
    with pytest.raises(StudyFileError) as refused:
        study(training, **changes)
    return [f"{problem.message} @ {problem.path}" for problem in refused.value.problems]


REFUSED = [
    (
        "optimizer: Adam",
        "'Adam' is none of the optimizers: write adam @ training.optimizer",
    ),
    (
        "optimizer: AdamW",
        "'AdamW' is none of the optimizers: write adamw @ training.optimizer",
    ),
    (
        "optimizer: SGD",
        "'SGD' is none of the optimizers: write sgd @ training.optimizer",
    ),
    (
        "optimizer: LBFGS",
        "'LBFGS' is none of the optimizers: LBFGS computes the loss several times in a step (it needs a "
        "closure), which the training loop does not @ training.optimizer",
    ),
    (
        "optimizer: SparseAdam",
        "'SparseAdam' is none of the optimizers: SparseAdam is for sparse gradients, and those of a model "
        "here are dense @ training.optimizer",
    ),
    (
        "optimizer: RMSProp",
        "unknown optimizer 'RMSProp'; did you mean 'RMSprop'?; there are: adam, adamw, sgd, ASGD, "
        "Adadelta, Adafactor, Adagrad, Adamax, Muon, NAdam, RAdam, RMSprop, Rprop @ training.optimizer",
    ),
    (
        "optimizer: 3",
        "must be adam, adamw, sgd or a class of torch.optim, such as RMSprop, not 3 @ training.optimizer",
    ),
    (
        "optimizer: RMSprop, optimizer_arguments: {lr: 1}",
        "'lr' cannot be given here: write training.learning_rate; RMSprop takes alpha, eps, centered @ "
        "training.optimizer_arguments.lr",
    ),
    (
        "optimizer: RMSprop, optimizer_arguments: {weight_decay: 1}",
        "'weight_decay' cannot be given here: write training.weight_decay; RMSprop takes alpha, eps, "
        "centered @ training.optimizer_arguments.weight_decay",
    ),
    (
        "optimizer: RMSprop, optimizer_arguments: {foreach: true}",
        "'foreach' cannot be given here: how an optimizer is computed is chosen by the path that a run "
        "takes; RMSprop takes alpha, eps, centered @ training.optimizer_arguments.foreach",
    ),
    (
        "optimizer: RMSprop, optimizer_arguments: {alhpa: 1}",
        "no argument 'alhpa'; did you mean 'alpha'?; RMSprop takes alpha, eps, centered @ "
        "training.optimizer_arguments.alhpa",
    ),
    (
        "optimizer_arguments: {betas: {a: 1}}",
        "must be a number, text, true, false, null or a list of these, not {a: 1} @ training.optimizer_arguments.betas",
    ),
    (
        "optimizer_arguments: 3",
        "must be a mapping of arguments to their values, such as {eps: 1e-6}, not 3 @ training.optimizer_arguments",
    ),
    (
        "optimizer: Rprop, weight_decay: 0.1",
        "Rprop takes no weight decay; leave it out @ training.weight_decay",
    ),
    (
        "optimizer: RAdam, momentum: 0.5",
        "RAdam takes no momentum; leave it out @ training.momentum",
    ),
    (
        "schedule: ReduceLROnPlateau",
        "'ReduceLROnPlateau' is none of the schedules: ReduceLROnPlateau needs a metric of each epoch, and "
        "the rates are made before the first step @ training.schedule",
    ),
    (
        "schedule: LambdaLR",
        "'LambdaLR' is none of the schedules: LambdaLR needs a function, which a study file has none of @ "
        "training.schedule",
    ),
    (
        "schedule: SequentialLR",
        "'SequentialLR' is none of the schedules: SequentialLR is made of other schedules; `warmup` goes "
        "before any, and milestones are MultiStepLR's @ training.schedule",
    ),
    (
        "schedule: StepLR",
        "StepLR needs step_size; add `schedule_arguments: {step_size: …}` to training @ training.schedule_arguments",
    ),
    (
        "schedule: CyclicLR, schedule_arguments: {max_lr: 1, base_lr: 1}",
        "'base_lr' cannot be given here: it is training.learning_rate; CyclicLR takes max_lr, "
        "step_size_up, step_size_down, mode, gamma, scale_mode @ training.schedule_arguments.base_lr",
    ),
    (
        "schedule: CyclicLR, schedule_arguments: {max_lr: 1, cycle_momentum: true}",
        "'cycle_momentum' cannot be given here: a schedule changes the learning rate and nothing else; "
        "CyclicLR takes max_lr, step_size_up, step_size_down, mode, gamma, scale_mode @ "
        "training.schedule_arguments.cycle_momentum",
    ),
    (
        "schedule: OneCycleLR, schedule_arguments: {total_steps: 9}",
        "'total_steps' cannot be given here: the cycle is as long as the training; OneCycleLR takes "
        "pct_start, anneal_strategy, div_factor, final_div_factor, three_phase @ "
        "training.schedule_arguments.total_steps",
    ),
    (
        "schedule_arguments: {gamma: 1}",
        "no argument 'gamma'; constant takes none @ training.schedule_arguments.gamma",
    ),
    (
        "schedule_unit: step",
        "constant changes in every step; schedule_unit is for classes of torch.optim.lr_scheduler @ "
        "training.schedule_unit",
    ),
    (
        "warmup: 500",
        "a warm-up of 500 epochs is longer than a training of 20; it is in epochs @ training.warmup",
    ),
    (
        "warmup: -1",
        "must be a number from 0 to 100000, not -1 @ training.warmup",
    ),
    (
        "gradient_clipping: 0",
        "must be 'none', or a number greater than 0, not 0 @ training.gradient_clipping",
    ),
    (
        "label_smoothing: 1",
        "must be a number of at least 0 and less than 1, not 1 @ training.label_smoothing",
    ),
    (
        "loss: 'a.py:f', label_smoothing: 0.1",
        "label_smoothing is of the built-in loss, and training.loss is 'a.py:f'; do it in that @ "
        "training.label_smoothing",
    ),
    (
        "loss: 'a.py:f', class_weights: balanced",
        "class_weights is of the built-in loss, and training.loss is 'a.py:f'; do it in that @ training.class_weights",
    ),
    (
        "class_weights: [0, 0]",
        "must be 'none' or 'balanced', or a list of numbers of at least 0, one per class, not [0, 0] @ "
        "training.class_weights",
    ),
]


@pytest.mark.parametrize(("training", "said"), REFUSED, ids=[training for training, _ in REFUSED])
def test_a_setting_of_training_is_refused_with_what_is_allowed(training: str, said: str) -> None:
    assert [said] == refusals(training)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"factors": "training.optimizer: [adam, AdamW]"},
            "'AdamW' is none of the optimizers: write adamw @ factors.training.optimizer[1]",
        ),
        (
            {"factors": "training.optimizer: {levels: [adam, AdamW], label: O}"},
            "'AdamW' is none of the optimizers: write adamw @ factors.training.optimizer.levels[1]",
        ),
        (
            {"further": "tune: {training.optimizer: {choices: [adam, SGD]}}"},
            "'SGD' is none of the optimizers: write sgd @ tune.training.optimizer.choices[1]",
        ),
        (
            {"factors": "training.schedule: [constant, StepLR]"},
            "StepLR needs step_size; add `schedule_arguments: {step_size: …}` to training "
            "@ training.schedule_arguments",
        ),
        (
            {"factors": "training.warmup: [0, 30]"},
            "a warm-up of 30 epochs is longer than a training of 20; it is in epochs @ factors.training.warmup[1]",
        ),
        (
            {"data": "name: 'a.py:load', task: regression", "factors": "training.label_smoothing: [0, 0.1]"},
            "label_smoothing is a setting of the losses of classification, tokens, segmentation; this study's task is "
            "regression @ factors.training.label_smoothing[1]",
        ),
        (
            {
                "data": "name: 'a.py:load', task: multilabel",
                "further": "tune: {training.label_smoothing: {linear: [0, 0.5]}}",
            },
            "label_smoothing is a setting of the losses of classification, tokens, segmentation; this study's task is "
            "multilabel @ tune.training.label_smoothing",
        ),
    ],
)
def test_levels_and_choices_are_checked_as_the_baseline_is(changes: dict[str, str], said: str) -> None:
    assert [said] == refusals("epochs: 20", **changes)


@pytest.mark.parametrize(
    ("training", "factors"),
    [
        ("epochs: 3", "training.schedule_unit: [epoch, step]"),
        ("optimizer: Rprop", "training.weight_decay: [0, 0.1]"),
        ("optimizer: RAdam", "training.momentum: [0.9, 0.1]"),
    ],
)
def test_a_factor_that_the_optimizer_or_schedule_does_not_have_is_no_factor(training: str, factors: str) -> None:
    (said,) = refusals(training, factors=factors)

    assert "resolve to the same configuration" in said


def configurations(training: str, factors: str) -> list[dict[str, Any]]:
    return [variant.configuration["training"] for variant in study(training, factors=factors).variants]


def test_arguments_are_of_the_levels_that_take_them() -> None:
    adam, rmsprop = configurations(
        "optimizer_arguments: {alpha: 0.9, eps: 1e-6}", "training.optimizer: [adam, RMSprop]"
    )
    constant, stepped = study(
        "schedule_arguments: {step_size: 2}", factors="training.schedule: [constant, StepLR]"
    ).variants

    assert ({"eps": 1e-6}, {"alpha": 0.9, "eps": 1e-6}) == (
        adam["optimizer_arguments"],
        rmsprop["optimizer_arguments"],
    )
    assert ("momentum" in adam, rmsprop["momentum"]) == (False, 0.9)
    assert "schedule_arguments" not in constant.configuration["training"]
    assert {"step_size": 2} == stepped.settings.engine.schedule_arguments
    assert {} == constant.settings.engine.schedule_arguments


@pytest.mark.parametrize(
    "factor",
    [
        "training.optimizer: [adam, RAdam]",
        "training.warmup: [0, 2]",
        "training.gradient_clipping: [none, 1.0]",
        "training.label_smoothing: [0, 0.1]",
        "training.class_weights: [none, balanced]",
    ],
)
def test_the_settings_of_training_are_factors(factor: str) -> None:
    assert 2 == len({str(each) for each in configurations("epochs: 3", factor)})


def test_the_settings_of_training_are_tuned() -> None:
    spaces = (
        "training.warmup: {linear: [0, 2]}, training.gradient_clipping: {log: [0.1, 10]}, "
        "training.label_smoothing: {linear: [0, 0.3]}, training.optimizer: {choices: [adam, RAdam]}"
    )
    tuned = study("epochs: 3", further=f"tune: {{{spaces}}}")
    found = {"training.warmup": 1.5, "training.gradient_clipping": 0.5, "training.label_smoothing": 0.1}

    settings = tuned.spec.with_levels({"model.depth": 4}, tuned=found).settings().engine

    assert (1.5, 0.5, 0.1) == (settings.warmup, settings.gradient_clipping, settings.label_smoothing)
