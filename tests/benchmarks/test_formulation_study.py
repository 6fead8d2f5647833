"""The formulation study trains what the demo's configs say, does nothing twice, and its policies need its models."""

import json

import formulation_policies
import formulation_study
import pytest
import torch
from formulation_arms import ARMS
from formulation_study import recipe_of, size_of

from datamodules import collect
from lit_pwm.experiments.recipes import WORLD_MODEL, Recipe


def test_a_size_is_the_recipes_of_the_configs():
    tiny, recipe = recipe_of("tiny", {"data.store": "x"}), Recipe(WORLD_MODEL, {"data.store": "x"})
    assert tiny.options_of("model") == recipe.options_of("model")
    data = {**recipe.options_of("data"), "val_fraction": 0.2, "val_batches": 40}
    assert tiny.options_of("data") == data
    size, large = size_of(tiny), size_of(recipe_of("5m", {"data.store": "x"}))
    assert (size.mlp_hidden, size.batch_size, size.horizon, size.world_model["latent_dim"]) == (256, 128, 4, 128)
    assert (large.mlp_hidden, large.batch_size, large.horizon, large.world_model["latent_dim"]) == (512, 256, 4, 512)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formulation")
    collect(("cup-catch", "cartpole-balance"), 6, folder / "data.h5", "noise", workers=1, seed=0, progress=False)
    return folder


def test_arms_are_trained_scored_and_recorded_once(store, tmp_path, monkeypatch, capsys):
    argv = ["study", "--arms", "mlp", "flow-sigreg", "--seeds", "1", "--updates", "2", "--workers", "1"]
    argv += ["--runs", str(store), "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", argv)
    formulation_study.main()
    assert "2 finished" in capsys.readouterr().out
    records = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert set(records) == {"mlp_0", "flow-sigreg_0"}
    assert records["mlp_0"]["hidden_dim"] == 256
    assert abs(records["flow-sigreg_0"]["parameters"] / records["mlp_0"]["parameters"] - 1) <= 0.02
    assert all(record["scores"]["decoded_error_16"] > 0 for record in records.values())
    held = torch.load(store / "flow-sigreg_0.ckpt", weights_only=False)["hyper_parameters"]
    assert "'sigreg_coef': 0.1" in str(held)
    assert "'rho': 0.9" in str(held)
    assert "| flow-sigreg: SIGReg" in (tmp_path / "table.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in (*tmp_path.glob("*.json"), *store.glob("*.ckpt"))}
    formulation_study.main()
    assert "2 skipped" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_an_arm_that_fails_does_not_stop_the_others_and_makes_the_exit_code(store, tmp_path, monkeypatch, capsys):
    broken = {"mlp": ARMS["mlp"], "flow-k1": ARMS["mlp"].__class__("broken", None)}
    monkeypatch.setattr(formulation_study, "ARMS", broken | {"flow": ARMS["flow"]})
    argv = ["study", "--arms", "flow-k1", "mlp", "--seeds", "1", "--updates", "2", "--workers", "1"]
    monkeypatch.setattr("sys.argv", [*argv, "--runs", str(store), "--results", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        formulation_study.main()
    assert stop.value.code == 1
    assert "flow-k1 seed 0 failed" in capsys.readouterr().out
    assert [path.stem for path in tmp_path.glob("*.json")] == ["mlp_0"]


@pytest.mark.long
def test_policies_are_trained_on_models_that_are_made_for_them(store, tmp_path, monkeypatch, capsys):
    (store / "mlp_0.ckpt").unlink(missing_ok=True)
    argv = ["policies", "--arms", "mlp", "--tasks", "cup-catch", "--seeds", "1", "--updates", "6"]
    argv += ["--model-updates", "2", "--workers", "1", "--runs", str(store), "--results", str(tmp_path)]
    monkeypatch.setattr("sys.argv", argv)
    formulation_policies.main()
    assert (store / "mlp_0.ckpt").exists()
    assert len(json.loads((tmp_path / "policies/mlp_cup-catch_0.json").read_text())["best"]) == 10
    (store / "mlp_0.ckpt").unlink()
    formulation_policies.main()
    assert "2 skipped" in capsys.readouterr().out
    assert not (store / "mlp_0.ckpt").exists()  # which nothing needs any more
