"""`--ckpt_path`: a file, `last` and `auto`, through the real command line."""

import csv
import json
import os
import shutil

import pytest
import torch
from jsonargparse import Namespace, dict_to_namespace

from lit_pwm.cli.main import run
from lit_pwm.cli.run_settings import differences, settings_of

TINY = [
    "--config", "configs/world_model/mlp_tiny.yaml", "--model.latent_dim", "32", "--model.encoder_dim", "32",
    "--model.reward_dim", "32", "--model.dynamics.hidden_dim", "32",
]  # fmt: skip
SHORT = ["--data.batch_size", "16", "--data.horizon", "4", "--trainer.limit_val_batches", "1"]
QUICK = ["--trainer.enable_model_summary", "false", "--trainer.enable_progress_bar", "false"]


@pytest.fixture
def fit(store, capsys):
    def go(root, *extra, steps=4, verb="fit"):
        argv = [verb, "--config", "configs/pretrain.yaml", *TINY, *SHORT, *QUICK, "--data.store", store]
        argv += ["--trainer.default_root_dir", root, "--trainer.accelerator", "cpu"]
        if verb == "fit":
            argv += ["--trainer.max_steps", steps, "--trainer.val_check_interval", 2]
        code = run([str(argument) for argument in [*argv, *extra]])
        captured = capsys.readouterr()
        return code, " ".join((captured.out + captured.err).split())

    return go


def last(root, version=0):
    return root / "lightning_logs" / f"version_{version}" / "checkpoints" / "last.ckpt"


def step(path):
    return torch.load(path, weights_only=True)["global_step"]


def rows(root):
    with (root / "lightning_logs" / "version_0" / "metrics.csv").open() as lines:
        return [{k: v for k, v in row.items() if v and "compute/" not in k} for row in csv.DictReader(lines)]


def test_auto_goes_on_in_its_own_folder(fit, tmp_path):
    every = ["--trainer.log_every_n_steps", "1"]
    code, said = fit(tmp_path / "run", "--ckpt_path", "auto", *every)
    assert code == 0
    assert "starting anew" in said
    best = sorted(path.name for path in last(tmp_path / "run").parent.iterdir())
    code, said = fit(tmp_path / "run", "--ckpt_path", "auto", *every, steps=6)
    assert code == 0, said
    assert "Resuming from" in said
    assert "at update 4" in said
    assert "trainer.max_steps: 4 in the checkpoint, 6 in this run" in said
    assert [path.name for path in (tmp_path / "run" / "lightning_logs").iterdir()] == ["version_0"]
    assert step(last(tmp_path / "run")) == 6
    fit(tmp_path / "whole", *every, steps=6)
    assert [row["step"] for row in rows(tmp_path / "run")] == [row["step"] for row in rows(tmp_path / "whole")]
    kept = [path.name for path in last(tmp_path / "run").parent.iterdir()]
    assert len(kept) == len(best) == 2  # one best, one last


def test_rows_beyond_the_checkpoint_are_dropped(fit, tmp_path):
    every = ["--trainer.log_every_n_steps", "1"]
    fit(tmp_path, *every)
    file = tmp_path / "lightning_logs" / "version_0" / "metrics.csv"
    lines = file.read_text().splitlines()
    header = lines[0].split(",")
    late = ",".join("9" if name == "step" else "1" for name in header)
    file.write_text("\n".join([*lines, late, late[:5]]) + "\n")  # written after the checkpoint; the last cut by a kill
    code, said = fit(tmp_path, "--ckpt_path", "last", *every, steps=5)
    assert code == 0, said
    assert [row["step"] for row in rows(tmp_path)].count("9") == 0
    assert max(int(row["step"]) for row in rows(tmp_path)) == 4


def test_a_run_that_is_done_says_so(fit, tmp_path):
    fit(tmp_path)
    before = last(tmp_path).stat().st_mtime_ns
    code, said = fit(tmp_path, "--ckpt_path", "auto")
    assert code == 0
    assert "has its trainer.max_steps of 4 updates" in said
    assert last(tmp_path).stat().st_mtime_ns == before


@pytest.mark.parametrize("asked", ["last", "best", "hpc", "registry", "registry:x:1", "nowhere.ckpt", ""])
def test_a_name_without_a_checkpoint_is_refused(fit, tmp_path, asked):
    code, said = fit(tmp_path / "run", "--ckpt_path", asked)
    assert code == 2
    assert "error:" in said
    assert asked in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change",
    [
        ["--model.optimizer.lr", "0.01"],
        ["--data.batch_size", "8"],
        ["--data.horizon", "3"],
        ["--data.balance", "tasks"],
        ["--data.seed", "9"],
        ["--data.tasks", "[cartpole-swingup]"],
        ["--seed_everything", "9"],
        ["--trainer.precision", "bf16-mixed"],
        ["--model.world_model.dynamics", "lit_pwm.models.RefinementDynamics"],
        [
            "--model.world_model.parameter_reference",
            "lit_pwm.models.MLPDynamics",
            "--model.world_model.parameter_tolerance",
            "9",
        ],
    ],
    ids=lambda change: change[0][2:],
)
def test_another_configuration_is_refused_by_name_and_listed_by_file(fit, trained, tmp_path, change):
    option = change[0][2:]
    code, said = fit(trained, "--ckpt_path", "auto", *change, steps=5)
    assert code == 2
    assert str(last(trained)) in said
    assert option in said
    if option in ("model.optimizer.lr", "data.batch_size"):
        code, said = fit(tmp_path, "--ckpt_path", last(trained), *change, steps=4)
        assert code == 0, said
        assert f"{option}: " in said
        assert "this run's win" in said


@pytest.mark.parametrize("stream", ["data", "data.second"])
@pytest.mark.parametrize(("size", "ranks", "goes_on"), [(8, 2, True), (16, 1, True), (8, 1, False), (16, 2, False)])
def test_of_ranks_and_batch_sizes_their_product_counts_in_each_stream(stream, size, ranks, goes_on):
    theirs = {f"{stream}.batch_size": 16, "ranks": 1}
    found = differences(theirs, {f"{stream}.batch_size": size, "ranks": ranks})
    assert all(one.is_free for one in found) == goes_on
    assert goes_on or f"{stream}.batch_size × ranks" in [one.option for one in found]


def test_an_interval_that_changes_what_is_computed_is_no_interval():
    for callback, is_free in (("ModelCheckpoint", True), ("FinetuneSchedule", False)):
        option = f"trainer.callbacks.{callback}.every_n_updates"
        (found,) = differences({option: 1, "ranks": 1}, {option: 2, "ranks": 1})
        assert found.is_free == is_free


def as_settings(**options):
    """What checkpoints keep of options that a command line was given, with jsonargparse's marks in their names."""
    parts = dict_to_namespace({name: {"update": update, "lr": None} for name, update in options["parts"].items()})
    schedule = Namespace(class_path="callbacks.FinetuneSchedule", init_args=Namespace(parts=parts, pull=None))
    model = Namespace(class_path="lit_pwm.PolicyLearning", init_args=Namespace(new_tasks=options.get("new_tasks")))
    return settings_of(Namespace(model=model, trainer=Namespace(callbacks=[schedule])), ranks=1)


@pytest.mark.parametrize(
    ("theirs", "ours", "option"),
    [
        ({"reward": 1}, {"reward": 1, "encoder": 5}, "trainer.callbacks.FinetuneSchedule.parts"),
        ({"reward": 1, "encoder": 5}, {"reward": 1}, "trainer.callbacks.FinetuneSchedule.parts"),
        ({"reward": 1}, {"encoder": 1}, "trainer.callbacks.FinetuneSchedule.parts"),
        ({"reward": 1}, {"reward": 2}, "trainer.callbacks.FinetuneSchedule.parts.reward.update"),
        ({"reward": 1}, {"reward": 1}, None),
    ],
)
def test_a_schedule_of_other_parts_is_another_configuration(theirs, ours, option):
    found = differences(as_settings(parts=theirs), as_settings(parts=ours))
    assert [one.option for one in found] == ([] if option is None else [option])
    assert not any(one.is_free for one in found)


def test_other_new_tasks_are_another_configuration():
    theirs, ours = (as_settings(parts={"all": 0}, new_tasks=named) for named in ({"a": "b"}, {"a": "b", "c": "b"}))
    assert [(one.option, one.theirs, one.ours) for one in differences(theirs, ours)] == [
        ("model.new_tasks", ["a"], ["a", "c"])
    ]


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    argv = ["fit", "--config", "configs/pretrain.yaml", *TINY, *SHORT, *QUICK, "--data.store", store]
    argv += ["--trainer.default_root_dir", root, "--trainer.accelerator", "cpu"]
    assert run([*map(str, argv), "--trainer.max_steps", "4", "--trainer.val_check_interval", "2"]) == 0
    return root


def test_all_settings_are_those_of_the_checkpoint(fit, trained, tmp_path):
    code, said = fit(tmp_path, "--ckpt_path", last(trained))
    assert code == 0
    assert "All settings are those of the checkpoint." in said
    code, said = fit(tmp_path, "--ckpt_path", last(trained), steps=5)
    assert "trainer.max_steps: 4 in the checkpoint, 5 in this run" in said
    assert "All settings" not in said


def test_several_configurations_under_one_folder_are_refused(fit, trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    fit(tmp_path, "--model.optimizer.lr", "0.01")
    code, said = fit(tmp_path, "--ckpt_path", "auto", steps=6)
    assert code == 2
    assert "several configurations" in said
    assert "model.optimizer.lr" in said
    assert "version_0" in said
    assert "version_1" in said


def test_damaged_foreign_and_last_good_files_are_passed_over(fit, trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    whole = last(tmp_path)
    content = torch.load(whole, weights_only=True)
    torch.save(content | {"global_step": 90}, whole.with_name("last_good.ckpt"))
    torch.save({"state_dict": {}, "global_step": 91}, whole.with_name("foreign.ckpt"))
    weights = {key: value for key, value in content.items() if key not in ("optimizer_states", "loops")}
    torch.save(weights | {"global_step": 92}, whole.with_name("weights.ckpt"))
    whole.with_name("half.ckpt").write_bytes(whole.read_bytes()[:5000])
    for name in ("last_good", "foreign", "weights", "half"):  # written last, as a run's adapter or a kill leaves them
        os.utime(whole.with_name(f"{name}.ckpt"), (2e9, 2e9))
    code, said = fit(tmp_path, "--ckpt_path", "auto", steps=5)
    assert code == 0, said
    assert f"Resuming from {whole} at update 4" in said
    assert "half.ckpt is passed over" in said


def spoil(path):
    """Change bytes of a tensor, which torch reads without a word."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)


def test_changed_bytes_are_passed_over_by_name_and_refused_by_file(fit, trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    spoil(last(tmp_path))
    code, said = fit(tmp_path, "--ckpt_path", last(tmp_path), steps=5)
    assert code == 2
    assert "checksum" in said
    code, said = fit(tmp_path, "--ckpt_path", "auto", steps=5)
    assert code == 0, said
    assert "last.ckpt is passed over" in said
    assert "best-" in said.partition("Resuming from")[2]
    for path in last(tmp_path).parent.iterdir():
        spoil(path)
    code, said = fit(tmp_path, "--ckpt_path", "last", steps=5)
    assert code == 2
    assert "there is none" in said


@pytest.mark.parametrize(
    ("entry", "value"),
    [("global_step", "many"), ("global_step", float("nan")), ("lit_pwm", "x"), ("lit_pwm", {}), ("loops", {}),
     ("lit_pwm_settings", [1]), ("optimizer_states", None)],
)  # fmt: skip
def test_entries_that_say_nothing_are_passed_over_by_name_and_refused_by_file(fit, trained, tmp_path, entry, value):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    odd = last(tmp_path).with_name("odd.ckpt")
    torch.save(torch.load(last(tmp_path), weights_only=True) | {"global_step": 90, entry: value}, odd)
    code, said = fit(tmp_path, "--ckpt_path", "auto", steps=4)
    assert code == 0, said
    assert f"Resuming from {last(tmp_path)} at update 4" in said
    code, said = fit(tmp_path, "--ckpt_path", odd, steps=4)
    assert code == 2
    assert "odd.ckpt" in said


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("callbacks",), None),
        (("hyper_parameters",), []),
        (("state_dict",), "x"),
        (("pytorch-lightning_version",), "x"),
        (("optimizer_states", 0), None),
        (("lr_schedulers", 0, "lr_lambdas"), None),
        (("callbacks", "ComputeLedger"), {"class_path": "os.system"}),
        (("callbacks", "RNGState", "ranks", 0), {"python": [3, [], None]}),
        (("callbacks", "RNGState", "ranks", 0, "numpy"), ["MT19937", None, 0, 0, 0.0]),
        (("callbacks", "RNGState", "ranks"), None),
        (("callbacks", "RNGState", "ranks", 0, "torch"), torch.zeros(3)),
    ],
)
def test_state_of_any_kind_ends_in_a_paragraph_that_names_the_file(fit, trained, tmp_path, place, value):
    content = torch.load(last(trained), weights_only=True)
    where = content
    for key in place[:-1]:
        where = where[key]
    where[place[-1]] = value
    for part in [key for key in content if "checksum" in key]:
        del content[part]
    torch.save(content, tmp_path / "changed.ckpt")
    code, said = fit(tmp_path / "run", "--ckpt_path", tmp_path / "changed.ckpt", steps=6)
    assert code == 2
    assert "error:" in said
    assert "changed.ckpt" in said


def test_last_wins_ties_and_the_highest_update_wins(fit, trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    content = torch.load(last(tmp_path), weights_only=True)
    os.utime(last(tmp_path), (1, 1))
    torch.save(content, last(tmp_path).with_name("zz.ckpt"))
    _, said = fit(tmp_path, "--ckpt_path", "last", steps=4)
    assert f"Resuming from {last(tmp_path)} " in said


def test_an_option_that_its_class_has_lost_is_told_and_can_be_ignored(fit, trained, tmp_path):
    for asked in (last(tmp_path / "file"), "auto"):
        root = tmp_path / ("auto" if asked == "auto" else "file")
        shutil.copytree(trained, root)
        content = torch.load(last(root), weights_only=True)
        content["lit_pwm"]["world_model"]["dynamics"]["init_args"]["width_of_old"] = 3
        torch.save(content, last(root))
        code, said = fit(root, "--ckpt_path", asked, steps=5)
        assert code == 2
        assert "--ignore-options width_of_old" in said
        code, said = fit(root, "--ckpt_path", asked, "--ignore-options", "width_of_old", steps=5)
        assert code == 0, said


def test_a_job_that_slurm_restarted_goes_on(fit, trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    code, said = fit(tmp_path / "new", steps=2)
    assert "Resuming" not in said
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    code, said = fit(tmp_path, steps=5)
    assert code == 0
    assert "at update 4" in said


def test_a_restarted_job_that_began_with_a_file_goes_on_from_its_own(fit, trained, tmp_path, monkeypatch):
    began = ["--ckpt_path", last(trained), "--model.optimizer.lr", "0.01"]
    assert fit(tmp_path, *began, steps=6)[0] == 0
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    for steps in (7, 8):  # restarted twice
        code, said = fit(tmp_path, *began, steps=steps)
        assert code == 0, said
        assert f"resuming from {last(tmp_path)} at update {steps - 1}" in said
    other = ["--ckpt_path", last(trained), "--model.optimizer.lr", "0.02"]
    assert f"Resuming from {last(trained)}" in fit(tmp_path, *other, steps=5)[1]


def test_what_lightnings_own_handler_left_is_compared_too(fit, trained, tmp_path, monkeypatch):
    """Lightning would go on from it by itself, whatever the settings."""
    shutil.copy(last(trained), tmp_path / "hpc_ckpt_1.ckpt")
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "job"}.items():
        monkeypatch.setenv(name, value)
    code, said = fit(tmp_path, "--model.optimizer.lr", "0.01", steps=5)
    assert code == 2
    assert "hpc_ckpt_1.ckpt" in said
    assert "model.optimizer.lr" in said
    code, said = fit(tmp_path, steps=5)
    assert code == 0, said
    assert f"Resuming from {tmp_path / 'hpc_ckpt_1.ckpt'} at update 4" in said


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_verbs_that_need_a_trained_network_do_not_run_without(fit, trained, tmp_path, verb):
    code, said = fit(tmp_path, verb=verb)
    assert code == 2
    assert "--ckpt_path" in said
    code, said = fit(trained, "--ckpt_path", "last", verb=verb)
    assert code == 0, said
    assert "at update 4" in said


def test_a_checkpoint_without_settings_is_compared_as_far_as_it_goes(fit, trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    content = torch.load(last(tmp_path), weights_only=True)
    del content["lit_pwm_settings"]
    torch.save(content, last(tmp_path))
    for path in last(tmp_path).parent.glob("best*"):
        path.unlink()
    code, said = fit(tmp_path / "other", "--ckpt_path", last(tmp_path), "--model.optimizer.lr", "0.01")
    assert "lr: 0.0003 in the checkpoint, 0.01 in this run" in said
    code, said = fit(tmp_path, "--ckpt_path", "auto", steps=5)
    assert code == 0, said


def test_best_and_its_score_are_kept_in_another_folder(fit, trained, tmp_path, monkeypatch):
    """Where nothing better comes, the best of the resumed run is the best of the one before, named in full."""
    monkeypatch.chdir(tmp_path)
    content = torch.load(last(trained), weights_only=True)
    (key,) = [key for key in content["callbacks"] if key.startswith("ModelCheckpoint")]
    moved = tmp_path / "moved"
    moved.mkdir()
    state = content["callbacks"][key]
    best = torch.tensor(-5.0)  # no loss of a later validation is better
    name = os.path.basename(state["best_model_path"])
    shutil.copy(state["best_model_path"], moved / name)
    gone = f"/nowhere/{name}"
    state |= {"best_k_models": {gone: best}, "best_model_path": gone, "best_model_score": best}
    torch.save(content, moved / "last.ckpt")
    code, said = fit(tmp_path / "run", "--ckpt_path", "moved/last.ckpt", steps=6)
    assert code == 0, said
    kept = torch.load(last(tmp_path / "run"), weights_only=True)["callbacks"][key]
    assert kept["best_model_path"] == str(moved / name)
    assert kept["best_model_score"] == best
    assert not list(last(tmp_path / "run").parent.glob("best*"))


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks")
def test_best_is_kept_where_only_its_interval_has_changed(fit, trained, tmp_path):
    """Lightning keeps the state of a `ModelCheckpoint` under a name that holds its intervals."""
    content = torch.load(last(trained), weights_only=True)
    (key,) = [key for key in content["callbacks"] if key.startswith("ModelCheckpoint")]
    state, best = content["callbacks"][key], torch.tensor(-5.0)  # no loss of a later validation is better
    state |= {"best_k_models": {state["best_model_path"]: best}, "best_model_score": best}
    torch.save(content, tmp_path / "before.ckpt")
    checkpointing = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    checkpointing["init_args"] = {"monitor": "val/loss", "filename": "best-{step}", "every_n_epochs": 3}
    option = f"--trainer.callbacks={json.dumps([checkpointing])}"
    code, said = fit(tmp_path / "run", "--ckpt_path", tmp_path / "before.ckpt", option, steps=6)
    assert code == 0, said
    states = torch.load(last(tmp_path / "run"), weights_only=True)["callbacks"]
    (kept,) = [state for name, state in states.items() if name.startswith("ModelCheckpoint")]
    assert (kept["best_model_path"], kept["best_model_score"]) == (state["best_model_path"], best)
    assert key not in states


def test_the_best_of_a_copied_folder_is_the_copy(fit, trained, tmp_path):
    """Not the file of the run that it was copied from, which may go on by itself."""
    shutil.copytree(trained, tmp_path / "copy")
    original = {path.name: path.read_bytes() for path in last(trained).parent.iterdir()}
    code, said = fit(tmp_path / "copy", "--ckpt_path", "last", steps=8)
    assert code == 0, said
    (best,) = last(tmp_path / "copy").parent.glob("best*")
    (state,) = [
        state
        for key, state in torch.load(last(tmp_path / "copy"), weights_only=True)["callbacks"].items()
        if key.startswith("ModelCheckpoint")
    ]
    assert os.path.realpath(state["best_model_path"]) == os.path.realpath(best)
    assert {path.name: path.read_bytes() for path in last(trained).parent.iterdir()} == original


def test_a_policy_goes_on_without_the_file_of_its_world_model(store, trained, tmp_path, capsys):
    model = tmp_path / "model.ckpt"
    shutil.copy(last(trained), model)
    argv: list[object] = ["fit", "--config", "configs/policy_learning_offline.yaml"]
    argv += [
        "--config",
        "configs/policy/mlp.yaml",
        *QUICK,
        *SHORT,
        "--data.store",
        store,
        "--data.tasks",
        "[cartpole-swingup]",
        "--trainer.val_check_interval",
        2,
    ]
    argv += ["--trainer.default_root_dir", tmp_path / "run", "--model.world_model_checkpoint", model]
    argv += ["--trainer.accelerator", "cpu", "--ckpt_path", "auto"]
    assert run([*map(str, argv), "--trainer.max_steps", "2"]) == 0
    model.unlink()
    assert run([*map(str, argv), "--trainer.max_steps", "4"]) == 0, capsys.readouterr().err
    assert step(last(tmp_path / "run")) == 4
    argv[argv.index(model)] = last(trained)
    assert run([*map(str, argv), "--trainer.max_steps", "6"]) == 2
    assert "world_model_checkpoint" in capsys.readouterr().err
    argv[argv.index("auto")] = last(tmp_path / "run")
    assert run([*map(str, argv), "--trainer.max_steps", "6"]) == 2
    assert "its own networks" in " ".join(capsys.readouterr().err.split())
