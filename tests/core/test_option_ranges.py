"""Every option has a range, and what lies outside it is refused by name, for classes of ours and of users."""

import argparse
import importlib
import inspect
import math
import pkgutil
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import jsonargparse
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from torchmetrics import Metric

import callbacks
import datamodules
import lit_pwm.flow
import lit_pwm.models
from datamodules.sampler import SliceSampler
from lit_pwm import PolicyLearning, WorldModelPretraining
from lit_pwm.errors import LitPWMError
from lit_pwm.evaluation.evaluator import Evaluator
from lit_pwm.losses import WorldModelObjective
from lit_pwm.models import MLPDynamics, TwoHot, WorldModel, WorldModelOptions
from lit_pwm.models.component import Component
from lit_pwm.models.latent_spaces import SPACES
from lit_pwm.models.running_stats import RunningVariance
from lit_pwm.options import (
    Count,
    CountOrZero,
    Length,
    OptionObject,
    Positive,
    Seed,
    argument,
    check_options,
    checked,
    hints_of,
)
from lit_pwm.options.optimizers import WorldModelOptimizer
from lit_pwm.options.policy_optimizers import ActorOptimizer, CriticOptimizer

KINDS = (Component, OptionObject, LightningModule, LightningDataModule, Callback, Metric)
BESIDE = {WorldModel, TwoHot, RunningVariance, Evaluator, SliceSampler}
BESIDE |= {WorldModelOptions, WorldModelOptimizer, WorldModelObjective, ActorOptimizer, CriticOptimizer}
# Names and paths, which are checked where they are used, and the lengths of episodes.
WITHOUT_RANGE = {
    "store", "tasks", "task_names", "task_set", "initial_checkpoint", "world_model_checkpoint",
    "initial_policy_checkpoint", "lengths", "dynamics", "actor", "critic", "space", "encoder", "reward", "heads",
    "world_model", "objective", "checkpoint_tasks", "new_tasks", "format", "pull",
}  # fmt: skip
REQUIRED = {
    "latent_dim": 16, "action_dim": 2, "obs_dim": 5, "task_dim": 4, "num_tasks": 2, "store": "x.h5", "horizon": 2,
    "tasks": {"a": (3, 2)}, "task_names": ["a"], "lengths": [5, 6], "space": SPACES["logit"],
    "episodes": 1, "seed": 0,
}  # fmt: skip


def public_classes():
    found = set(BESIDE)
    named = ("pretraining", "policy_learning", "losses", "measures.open_loop", "measures.decoded_error")
    modules = [importlib.import_module(f"lit_pwm.{name}") for name in named]
    for package in (lit_pwm.models, lit_pwm.flow, callbacks, datamodules):
        names = [info.name for info in pkgutil.iter_modules(package.__path__)]
        modules += [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    for module in modules:
        for name, cls in inspect.getmembers(module, inspect.isclass):
            ours = cls.__module__ == module.__name__ and not name.startswith("_")
            if ours and issubclass(cls, KINDS) and "__init__" in cls.__dict__:
                found.add(cls)
    return sorted(found, key=lambda cls: cls.__qualname__)


CLASSES = public_classes()


def bare(hint: Any) -> list[Any]:
    """Numbers and texts in a hint that no range restricts."""
    if get_origin(hint) is Annotated:
        base = get_args(hint)[0]
        return [] if base in (int, float) else bare(base)
    if get_origin(hint) in (Literal, Callable):
        return []
    if get_origin(hint) is dict:
        return bare(get_args(hint)[1])
    if get_args(hint):
        return [one for part in get_args(hint) for one in bare(part)]
    return [hint] if hint in (int, float, str) else []


def options_of(cls):
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return {parameter.name: parameter for parameter in parameters}


def arguments_for(cls):
    own = REQUIRED | {Evaluator: {"tasks": ["cup-catch"]}}.get(cls, {})
    return {name: own[name] for name, one in options_of(cls).items() if one.default is inspect.Parameter.empty}


def test_the_walk_finds_what_there_is():
    names = {cls.__name__ for cls in CLASSES}
    assert names >= {"WorldModelPretraining", "PolicyLearning", "MultitaskDataModule", "FlowDynamics", "FlowActor"}
    assert names >= {"MLPDynamics", "RefinementDynamics", "MLPActor", "CriticEnsemble", "EnvironmentEvaluation"}
    assert names >= {"FixedStep", "Dopri5", "NoiseSource", "EndPointError", "EnergyLoss", "FlowMatching", "GroupScore"}
    assert len(CLASSES) >= 30


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_no_constructor_is_long(cls):
    """Beside dimensions, which the data gives. Who would add one option too many groups what belongs together."""
    options = set(options_of(cls)) - set(getattr(cls, "dimensions", ()))
    assert len(options) <= (18 if issubclass(cls, LightningModule) else 15), sorted(options)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_option_has_a_range(cls):
    hints = hints_of(cls.__init__)
    for name in options_of(cls):
        assert name in hints, f"{cls.__name__}.{name} has no type hint that can be resolved"
        if name not in WITHOUT_RANGE:
            assert not bare(hints[name]), f"{cls.__name__}.{name} is {hints[name]}, without a range (lit_pwm.options)"


NUMBERS = [
    (cls, name)
    for cls in CLASSES
    for name, hint in hints_of(cls.__init__).items()
    if not inspect.isabstract(cls)
    and name in options_of(cls)
    and any(text in str(hint) for text in ("Range", "Literal"))
]


@pytest.mark.parametrize(("cls", "name"), NUMBERS, ids=lambda one: getattr(one, "__name__", one))
def test_what_is_no_number_is_refused_by_every_constructor(cls, name):
    for wrong in (math.nan, -math.inf, True, "many"):
        with pytest.raises(LitPWMError, match=rf"{cls.__name__} has {name} .*; give "):
            cls(**arguments_for(cls) | {name: wrong})


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_defaults_lie_in_their_ranges(cls):
    defaults = {n: p.default for n, p in options_of(cls).items() if p.default is not inspect.Parameter.empty}
    check_options(cls, defaults)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: WorldModelPretraining(clip_norm=-1), "clip_norm -1; give a number, above 0"),
        (lambda: WorldModelPretraining(clip_norm=0), "clip_norm 0"),
        (lambda: WorldModelPretraining(latent_dim=0), "latent_dim 0; give a whole number, 8 or more, a multiple of 8"),
        (lambda: WorldModelPretraining(latent_dim=12), "latent_dim 12"),
        (lambda: WorldModelPretraining(betas=(0.9, 1.0)), "betas .*below 1"),
        (lambda: WorldModelPretraining(betas=(0.9,)), "betas .*a list of 2"),
        (lambda: WorldModelPretraining(target_encoder_rate=0.5), "no more.*benchmarks.encoder_steadying.Steadied"),
        (lambda: WorldModelObjective(coefficients={"reward": -1}), "coefficients .*0 or more"),
        (lambda: PolicyLearning(gamma=1.01), "gamma 1.01; give a number, 0 or more, at most 1"),
        (lambda: PolicyLearning(critic_optimizer={"passes": 0}), "passes 0"),
        (lambda: PolicyLearning(actor_optimizer={"final_lr": 1e-3}), "final_lr 0.001.*not larger"),
        (
            lambda: PolicyLearning(initial_policy_checkpoint=""),
            "initial_policy_checkpoint ''; give text, not empty, or",
        ),
        (
            lambda: WorldModelPretraining(initial_checkpoint=" "),
            "initial_checkpoint ' '; give text, not empty, or null",
        ),
        (lambda: PolicyLearning(returns={"reward_space": "symlogs"}), "Did you mean 'symlog'"),
        (lambda: PolicyLearning(actor_optimizer={"detach_input": "no"}), "give true or false"),
        (lambda: datamodules.MultitaskDataModule("x.h5", tasks="walker-run"), "tasks 'walker-run'; give a list"),
        (lambda: datamodules.MultitaskDataModule("x.h5", seed=-1), "seed -1; give a whole number, 0 or more, or null"),
        (lambda: datamodules.MultitaskDataModule("x.h5", num_workers=10**6), "num_workers 1000000; .* at most 1024"),
        (lambda: datamodules.MultitaskDataModule("x.h5", val_horizon=0.5), "val_horizon 0.5; give .*, or null"),
        (lambda: callbacks.EnvironmentEvaluation(tasks=[]), r"tasks \[\]; give .*at least 1 entry, or null"),
        (lambda: callbacks.EnvironmentEvaluation(tasks=["a", "b", "a"]), "name one twice.*Name each once"),
        (lambda: lit_pwm.models.MLPActor(8, 2, 1, hidden_dims=[]), "hidden_dims .*at least 1 entry"),
        (lambda: lit_pwm.models.MLPActor(8, 2, 1, hidden_dims=[8, 0]), "hidden_dims"),
        (lambda: lit_pwm.models.MLPActor(8, 2, 1, hidden_dims=8), "hidden_dims 8; give a list"),
        (lambda: lit_pwm.models.FlowDynamics(8, 2, 0, time_dim=3), "time_dim 3.*a multiple of 2"),
        (lambda: TwoHot(101, 1.0, -1.0), "low 1 and high -1"),
    ],
)
def test_the_error_names_option_value_and_range(make, says):
    with pytest.raises(LitPWMError, match=says):
        make()


def test_plain_values_of_a_checkpoint_and_numpys_numbers_are_accepted():
    WorldModelPretraining(betas=[0.9, 0.99], latent_dim=np.int64(16), lr=np.float32(1e-3), rho=1)
    lit_pwm.models.MLPActor(8, 2, 1, hidden_dims=[8, 8], log_std_init=-1)


class Halved(MLPDynamics):
    """A user's: an option of its own with a range, one with a type only, and the base's by **kwargs."""

    def __init__(
        self, latent_dim: int, action_dim: int, task_dim: int, share: Positive = 0.5, other: int = 3, **kwargs
    ):
        super().__init__(latent_dim, action_dim, task_dim, **kwargs)
        self.share = share


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"share": 0}, "Halved has share 0"),
        ({"hidden_dim": 0}, "Halved has hidden_dim 0"),
        ({"other": 2.5}, "Halved has other 2.5; give a whole number"),
    ],
)
def test_a_users_component_is_checked_too(options, says):
    with pytest.raises(LitPWMError, match=says):
        Halved(16, 2, 4, **options)


def test_parsers_see_plain_types_and_all_options():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(WorldModelPretraining, "model")
    assert "Range" not in parser.format_help()
    dynamics = "--model.world_model.dynamics"
    options = [
        f"{dynamics}=lit_pwm.models.FlowDynamics",
        f"{dynamics}.solver.substeps=3",
        "--model.optimizer.clip_norm=7",
    ]
    made = parser.instantiate_classes(parser.parse_args(options)).model
    assert made.optimizer_settings.clip_norm == 7
    assert made.world_model_options.dynamics(16, 2, 4).solver.substeps == 3
    wrong = parser.instantiate_classes(
        parser.parse_args([*options, "--model.world_model.dynamics.solver.substeps=0"])
    ).model
    with pytest.raises(LitPWMError, match="FixedStep has substeps 0"):
        wrong.world_model_options.dynamics(16, 2, 4)


def test_a_parser_finds_what_a_users_component_passes_on():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Halved, "part")
    found = parser.parse_args(
        ["--part.latent_dim=16", "--part.action_dim=2", "--part.task_dim=4", "--part.hidden_dim=24"]
    )
    made = parser.instantiate_classes(found).part
    assert (made.hidden_dim, made.share) == (24, 0.5)


def test_a_hint_that_only_a_type_checker_knows_hides_no_other():
    class Late:
        @checked
        def __init__(self, size: Count, other: "NeverDefined" = None):  # noqa: F821  # ty: ignore[unresolved-reference]
            self.size = size

    assert Late(1, object()).size == 1
    with pytest.raises(LitPWMError, match="size 0"):
        Late(0)
    with pytest.raises(TypeError, match="size"):
        Late()  # ty: ignore[missing-argument]


@pytest.mark.parametrize(
    ("hint", "text"),
    [(Count, "0"), (Count, "-1"), (Count, "2.5"), (Count, "many"), (Positive, "nan"), (Positive, "inf"), (Seed, "-1")],
)
def test_verbs_read_numbers_in_ranges(hint, text):
    with pytest.raises(argparse.ArgumentTypeError, match="give a"):
        argument(hint)(text)


def test_verbs_read_what_is_in_range():
    assert argument(Count)("7") == 7
    assert argument(Positive)("1e-3") == 1e-3


def test_saved_options_are_those_given():
    module = WorldModelPretraining(latent_dim=16, lr=2e-4)
    assert module.hparams["world_model"]["latent_dim"] == 16
    assert module.hparams["optimizer"]["lr"] == 2e-4
    assert "dynamics" not in module.hparams["world_model"]


def test_functions_are_checked_too():
    @checked
    def roll(steps: Annotated[Sequence[CountOrZero], Length(2)]) -> int:
        return len(steps)

    assert roll([0, 1]) == 2
    with pytest.raises(LitPWMError, match=r"roll has steps \[1\]; give .*at least 2 entries"):
        roll([1])
    with pytest.raises(LitPWMError, match="steps"):
        roll(typing.cast("Any", torch.ones(3)))
