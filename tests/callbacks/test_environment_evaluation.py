"""When the policy is evaluated in its environment, and what a signal makes of an evaluation."""

import csv
import signal

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import callbacks
from datamodules import EpisodeWriter, MultitaskDataModule
from lit_pwm.errors import LitPWMError, RunStopped
from lit_pwm.evaluation import evaluator
from lit_pwm.tasks import task_spec

TASK = "cup-catch"
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Total length of `list`"),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("cup") / "cup.h5"
    rng = np.random.default_rng(3)
    with EpisodeWriter(path, tasks={TASK: (8, 2)}) as writer:
        for _ in range(6):
            action = rng.uniform(-1, 1, (30, 2))
            writer.append(task=TASK, obs=rng.standard_normal((31, 8)), action=action, reward=action[:, 0], source="t")
    return path


def data(store, val_fraction):
    return MultitaskDataModule(
        store, horizon=3, val_horizon=3, batch_size=8, batches_per_epoch=9, val_batches=2, val_fraction=val_fraction
    )


@pytest.fixture(scope="module")
def world_model(pretraining, run, store, tmp_path_factory):
    root = tmp_path_factory.mktemp("cup_model")
    trainer = run(pretraining(), root, updates=2, data=data(store, 0.2))
    trainer.save_checkpoint(root / "model.ckpt")
    return root / "model.ckpt"


class Tell(pl.Callback):
    """Sends SIGTERM half a second after the evaluation at an update has begun, as one would from outside."""

    def __init__(self, update):
        self.update = update

    def tell(self, trainer):
        if trainer.global_step == self.update:
            signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))
            signal.setitimer(signal.ITIMER_REAL, 0.05)

    def on_train_batch_end(self, trainer, *_):
        self.tell(trainer)

    def on_validation_epoch_end(self, trainer, *_):
        self.tell(trainer)


@pytest.fixture(scope="module")
def leg(policy_learning, run, store, world_model):
    def go(root, *first, val_fraction=0.0, resume=None, updates=6, **options):
        evaluating = callbacks.EnvironmentEvaluation(1, **{"before_training": False, **options})
        best = ModelCheckpoint(monitor="eval/return", mode="max", filename="best", save_top_k=-1)
        extra = [*first, evaluating, callbacks.RNGState(), callbacks.KeepBest(), callbacks.StopOnSignals(), best]
        code = 0
        try:
            run(
                policy_learning(world_model), root, [*extra, callbacks.LastCheckpoint()], updates, val_check_interval=2,
                data=data(store, val_fraction), ckpt_path=resume, enable_checkpointing=True,
            )  # fmt: skip
        except RunStopped as stop:
            code = stop.code
        file = root / "metrics.csv"
        rows = list(csv.DictReader(file.read_text().splitlines())) if file.exists() else []
        returns = {int(row["step"]): row["eval/return"] for row in rows if row.get("eval/return")}
        return code, returns, sorted(path.name for path in root.glob("checkpoints/best*"))

    return go


WITH = pytest.mark.parametrize("val_fraction", [0.0, 0.2], ids=["without validation", "with validation"])


@pytest.fixture(scope="module")
def undisturbed(leg, tmp_path_factory):
    made = {}

    def get(val_fraction):
        if val_fraction not in made:
            made[val_fraction] = leg(tmp_path_factory.mktemp("undisturbed"), val_fraction=val_fraction)
        return made[val_fraction]

    return get


@WITH
def test_it_is_evaluated_as_often_as_validation_would_be(undisturbed, val_fraction):
    code, returns, best = undisturbed(val_fraction)
    assert code == 0
    assert list(returns) == [1, 3, 5]
    assert len(best) == 3  # what monitors the return chooses after each


@WITH
def test_it_can_have_an_interval_of_its_own(leg, tmp_path, val_fraction):
    code, returns, best = leg(tmp_path, val_fraction=val_fraction, every_n_updates=3)
    assert code == 0
    assert list(returns) == [2, 5]
    assert len(best) == 2


@pytest.mark.parametrize(
    ("val_fraction", "update"),
    [(0.0, 6), (0.2, 4), *(pytest.param(*case, marks=pytest.mark.long) for case in ((0.0, 4), (0.2, 6)))],
)
def test_a_signal_ends_it_at_once_and_it_is_done_again(leg, undisturbed, tmp_path, monkeypatch, val_fraction, update):
    steps, act = [], evaluator.act_for_seeds
    monkeypatch.setattr(evaluator, "act_for_seeds", lambda *given: (steps.append(1), act(*given))[1])
    code, first, _ = leg(tmp_path / "a", Tell(update), val_fraction=val_fraction)
    assert code == 143
    assert len(steps) % task_spec(TASK).episode_length  # the last episode was left in its middle
    assert list(first) == [step for step in (1, 3, 5) if step < update - 1]
    last = tmp_path / "a" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == update
    code, rest, best = leg(tmp_path / "b", resume=last, val_fraction=val_fraction)
    assert code == 0
    assert first | rest == undisturbed(val_fraction)[1]
    assert len(best) == len(rest)


def test_a_task_without_an_environment_is_refused_before_training(policy_learning, pretraining, run, walks, tmp_path):
    trainer = run(pretraining(), tmp_path / "model", updates=2)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    for tasks, message in (
        (None, r"the task 'walk', but lit_pwm knows none: it is not registered.*does not say how.*_offline.yaml"),
        (["mw-reach"], "the task 'mw-reach', but lit_pwm knows none: those of Meta-World"),
        (
            ["gym:os:X-v0"],
            "the task 'gym:os:X-v0', but there is none.*module 'os', which is not imported.*_offline.yaml",
        ),
    ):
        with pytest.raises(LitPWMError, match=message):
            run(
                policy_learning(tmp_path / "model.ckpt"), tmp_path, [callbacks.EnvironmentEvaluation(1, tasks=tasks)],
                enable_checkpointing=True,
            )  # fmt: skip
