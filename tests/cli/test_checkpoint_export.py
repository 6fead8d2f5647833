"""`lit-pwm checkpoint export`: a policy of a run as one file, with what it earns beside the original."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lit_pwm.checkpoints import load_policy
from lit_pwm.cli.main import run


def test_a_policy_is_exported_and_earns_what_it_did(policy, tmp_path, capsys):
    out = tmp_path / "new" / "policy.pt2"
    argv = ["checkpoint", "export", str(policy), "--to", "torch-export", "--out", str(out)]
    assert run([*argv, "--seed", "3"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "1,000 observations" in text
    assert "10 episodes, environment seeds 3 to 12" in text
    ours, theirs, apart = map(float, text.partition("│ cartpole-swingup │ ")[2].replace("│", " ").split()[:3])
    assert ours > 0
    assert theirs == pytest.approx(ours, abs=0.2)
    assert apart < 0.1
    original, program = load_policy(policy), torch.export.load(out).module()
    obs = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    task = torch.full((3,), original.task_names.index("cartpole-swingup"))
    action = program(torch.from_numpy(obs), task).detach().numpy()
    assert np.abs(action - original.act(obs, "cartpole-swingup")).max() < 1e-5


def test_onnx_runs_in_onnxruntime(policy, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'lit-pwm[onnx]'")
    out = tmp_path / "policy.onnx"
    argv = ["checkpoint", "export", str(policy), "--to", "onnx", "--out", str(out), "--episodes", "0"]
    assert run(argv) == 0
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["obs", "task"]
    assert '"task_names"' in session.get_modelmeta().custom_metadata_map["lit_pwm.json"]
    obs = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    (action,) = session.run(None, {"obs": obs, "task": np.ones(9, np.int64)})
    assert np.abs(action - load_policy(policy).act(obs, "cartpole-swingup")).max() < 1e-5


def test_what_cannot_be_exported_is_said_before_anything_is_written(policy, world_model, tmp_path, refused):
    argv = ["checkpoint", "export", policy, "--out"]
    assert "'tensorrt'" in refused(*argv, "g.trt", "--to", "tensorrt")
    assert "also read" in refused(*argv, policy, "--to", "torch-export")
    assert "holds a world model" in refused(
        "checkpoint", "export", world_model, "--to", "torch-export", "--out", "g.pt2"
    )
    assert "'memory://g.pt2' is a URL" in refused(*argv, "memory://g.pt2", "--to", "torch-export")
    assert "Did you mean" in refused(*argv, "g.pt2", "--to", "torch-export", "--tasks", "cartpole-balanse")
    assert "names no task" in refused(*argv, "g.pt2", "--to", "torch-export", "--tasks", ",")
    assert "does not exist" in refused("checkpoint", "export", "F.ckpt", "--to", "torch-export", "--out", "g.pt2")
    assert "--tolerance" in refused(*argv, "g.pt2", "--to", "torch-export", "--tolerance", "1e-15")


def test_a_policy_of_another_project_is_exported_in_the_task_that_is_named(tmp_path, capsys):
    """PWM's files do not say for which task."""
    file = Path(__file__).parents[1] / "formats" / "pwm_files" / "pwm_single_task.pt"
    argv = ["checkpoint", "export", str(file), "--to", "torch-export", "--out", str(tmp_path / "policy.pt2")]
    assert run(argv) == 2
    assert "--tasks A,B" in capsys.readouterr().err
    assert run([*argv, "--tasks", "walker-run", "--episodes", "1"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "each of walker-run" in text
    assert "│ walker-run │" in text
