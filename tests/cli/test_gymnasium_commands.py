"""A task of gymnasium's from the command line: collect, pre-train, policy with evaluations, evaluate, video."""

import csv
import json

import pytest

from datamodules import EpisodeStore
from lit_pwm.cli.main import run
from lit_pwm.tasks import make_env
from lit_pwm.tasks.rendering import can_render

REACHER, OWN = "gym:Reacher-v5", "gym:point_mass:PointMass-v0"
TINY = [
    "--config", "configs/world_model/mlp_tiny.yaml", "--model.latent_dim", "32", "--model.encoder_dim", "32",
    "--model.reward_dim", "32", "--model.dynamics.hidden_dim", "32",
]  # fmt: skip
SHORT = ["--data.batch_size", "16", "--data.horizon", "4", "--trainer.limit_val_batches", "1"]
STEPS = ["--trainer.max_steps", "4", "--trainer.val_check_interval", "2"]


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_the_whole_job_in_an_environment_of_gymnasium(tmp_path):
    store, out = tmp_path / "store.h5", tmp_path / "R.json"
    argv = ["collect", "--tasks", f"{REACHER},{OWN}", "--episodes", "4", "--workers", "1", "--out", str(store)]
    assert run([*argv, "--behaviour", "random", "--import", "point_mass"]) == 0
    assert EpisodeStore(store).tasks == {REACHER: (10, 2), OWN: (8, 2)}

    world_model = tmp_path / "world_model"
    argv = ["fit", "--config", "configs/pretrain.yaml", *TINY, *SHORT, *STEPS, "--data.store", str(store)]
    argv += ["--data.tasks", f'["{REACHER}"]', "--trainer.default_root_dir", str(world_model)]
    assert run(argv) == 0
    policy = tmp_path / "policy"
    argv = ["fit", "--config", "configs/policy_learning.yaml", "--config", "configs/policy/mlp.yaml", *SHORT, *STEPS]
    argv += ["--model.world_model_checkpoint", str(next(world_model.rglob("last.ckpt"))), "--data.store", str(store)]
    argv += ["--data.tasks", f'["{REACHER}"]', "--trainer.default_root_dir", str(policy)]
    assert run(argv) == 0
    checkpoint = next(policy.rglob("last.ckpt"))
    with next(policy.rglob("metrics.csv")).open() as file:
        logged = [float(row[f"eval/return/{REACHER}"]) for row in csv.DictReader(file) if row[f"eval/return/{REACHER}"]]
    assert len(logged) == 3  # before the first update, and twice on schedule

    argv = ["evaluate", "--checkpoint", str(checkpoint), "--tasks", REACHER, "--episodes", "10", "--seed", "10000"]
    assert run([*argv, "--out", str(out), "--video", str(tmp_path / "videos")]) == 0
    found = json.loads(out.read_text())["tasks"][REACHER]
    assert found["mean"] == pytest.approx(logged[-1], rel=1e-6)
    assert found["normalised"] is None
    videos = [path.name for path in (tmp_path / "videos").iterdir()]
    assert videos == (["gym%3AReacher-v5.mp4"] if can_render() else [])

    argv = ["collect", "--tasks", REACHER, "--episodes", "2", "--workers", "1", "--out", str(tmp_path / "more.h5")]
    assert run([*argv, "--behaviour", str(checkpoint)]) == 0
    (obs, source), *_ = [(episode.obs, episode.source) for episode in EpisodeStore(tmp_path / "more.h5")]
    assert obs.shape == (51, 10)
    assert source.startswith("policy last.ckpt")
    assert make_env(REACHER).observation_space.shape == (10,)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("gym:Hopper", "write gym:Hopper-v5"),
        ("gym:Hoper-v5", "Did you mean 'Hopper-v5'"),
        ("gym:CartPole-v1", "The action_space of 'gym:CartPole-v1' is Discrete(2)"),
        ("gym:os:X-v0", "asks for the module 'os', which is not imported"),
        ("gym:never_imported_anywhere:X-v0", "give --import never_imported_anywhere"),
    ],
)
def test_names_that_are_refused_at_once(task, message, refused):
    error = refused("collect", "--tasks", f"cup-catch,{task}", "--episodes", "1", "--out", "x.h5")
    assert message in error
