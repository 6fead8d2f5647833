"""A small store of real episodes, and models trained on it through the command line."""

import pytest

# Lightning's log handler keeps the stderr it finds when it is imported: let that be pytest's own and not a test's.
import lit_pwm.cli.trainer  # noqa: F401
from lit_pwm.cli.main import run

TASKS = "cartpole-balance,cartpole-swingup"
TINY = [
    "--config", "configs/world_model/mlp_tiny.yaml", "--model.latent_dim", "32", "--model.encoder_dim", "32",
    "--model.reward_dim", "32", "--model.dynamics.hidden_dim", "32",
]  # fmt: skip
SHORT = ["--data.batch_size", "16", "--data.horizon", "4", "--trainer.limit_val_batches", "1"]


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "small.h5"
    assert run(["collect", "--tasks", TASKS, "--episodes", "3", "--out", str(path), "--workers", "1"]) == 0
    return path


def checkpoint(root):
    found = sorted(root.rglob("last.ckpt"))
    assert len(found) == 1, list(root.rglob("*"))
    return found[0]


@pytest.fixture(scope="session")
def world_model(store, tmp_path_factory):
    root = tmp_path_factory.mktemp("world_model")
    argv = ["fit", "--config", "configs/pretrain.yaml", *TINY, *SHORT, "--data.store", str(store)]
    argv += ["--trainer.max_steps", "4", "--trainer.val_check_interval", "2", "--trainer.default_root_dir", str(root)]
    assert run([*argv, "--seed_everything", "1"]) == 0
    return checkpoint(root)


@pytest.fixture(scope="session")
def policy(store, world_model, tmp_path_factory):
    root = tmp_path_factory.mktemp("policy")
    argv = ["fit", "--config", "configs/policy_learning.yaml", "--config", "configs/policy/mlp.yaml", *SHORT]
    argv += ["--model.world_model_checkpoint", str(world_model), "--data.store", str(store)]
    argv += ["--data.tasks", "[cartpole-swingup]", "--trainer.max_steps", "4", "--trainer.val_check_interval", "2"]
    assert run([*argv, "--trainer.default_root_dir", str(root)]) == 0
    return checkpoint(root)


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Runs a command line in an empty folder and returns its error, having checked the error's form."""
    monkeypatch.chdir(tmp_path)

    def check(*argv, code=2):
        capsys.readouterr()
        assert run([str(a) for a in argv]) == code
        text = capsys.readouterr().err
        paragraph = text[text.index("error: ") :]
        assert "Traceback" not in text
        assert "\n\n" not in paragraph.strip()
        assert list(tmp_path.iterdir()) == []
        return " ".join(paragraph.split())

    return check
