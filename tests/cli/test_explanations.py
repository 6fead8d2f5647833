"""What Lightning, the parser or the system refuses is told in a paragraph; a fault of a line keeps its traceback."""

import os
import signal

import pytest
from torch.utils.data import DataLoader, IterableDataset

from lit_pwm.cli.explain import explain
from lit_pwm.cli.main import run
from lit_pwm.errors import LitPWMError

FIT = [
    "fit", "--config", "configs/pretrain.yaml", "--config", "configs/world_model/mlp_tiny.yaml", "--data.horizon", "4",
    "--data.batch_size", "16", "--trainer.limit_val_batches", "1", "--trainer.max_steps", "2",
    "--trainer.val_check_interval", "2",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("--trainer.gradient_clip_val 1", ["trainer.gradient_clip_val", "model.optimizer.clip_norm"]),
        ("--trainer.accumulate_grad_batches 2", ["trainer.accumulate_grad_batches", "data.batch_size"]),
        ("--trainer.val_check_interval 0.5", ["trainer.val_check_interval", "whole number of updates"]),
        ("--trainer.val_check_interval 0", ["trainer.val_check_interval", "1 or more"]),
        ("--trainer.check_val_every_n_epoch 0", ["trainer.check_val_every_n_epoch", "1 or more"]),
        ("--trainer.log_every_n_steps -1", ["trainer.log_every_n_steps", "0 or more"]),
        ("--trainer.limit_val_batches 2.5", ["trainer.limit_val_batches", "2.5"]),
        ("--trainer.accelerator nosuch", ["trainer.accelerator", "nosuch"]),
        ("--trainer.devices 0", ["trainer.devices", "0"]),
        ("--trainer.num_nodes 0", ["trainer.num_nodes", "0"]),
        ("--trainer.strategy nosuch", ["trainer.strategy", "nosuch"]),
        ("--trainer.profiler nosuch", ["trainer.profiler", "simple"]),
        ("--trainer.max_steps -3", ["trainer.max_steps", "-3"]),
        ("--trainer.precision 7", ["trainer.precision", "bf16-mixed"]),
        ("--trainer.deterministic maybe", ["trainer.deterministic", "true or false"]),
        ("--trainer.callbacks+=callbacks.RunProgres", ["callbacks.RunProgres", "'RunProgress'"]),
        (
            "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor val/loss --trainer.callbacks.mode smallest",
            ["callbacks.mode.", "can be min, max, got smallest."],
        ),
        ("--trainer.logger WandbLogger", ["trainer.logger", "'wandb>=0.12.10' not met"]),
        ("--trainer.callbacks+=LambdaCallback --trainer.callbacks.on_fit_start 3", ["on_fit_start"]),
        ("--trainer.max_time abc", ["trainer.max_time", "DD:HH:MM:SS"]),
        ("--trainer.precision 16", ["'16-mixed'", "bf16-mixed"]),
        ("--trainer.precision 16-mixed", ["'16-mixed'", "bf16-mixed"]),
        ("--model.dynamics null", ["Dynamics", "None"]),
        ("--ckpt_path=", ["--ckpt_path", "is empty"]),
        ("--trainer.logger nosuch", ["trainer.logger", "nosuch", "CSVLogger"]),
        ("--seed_everything -1", ["seed_everything", "-1", "0 or more"]),
        ("--model.lr -1", ["lr -1.0", "0 or more"]),
        ("--model.betas 0.9", ["model.optimizer.betas", "a list of 2"]),
        ("--model.dynamics MLPDynamic", ["model.dynamics", "'MLPDynamics'"]),
        ("--model.dynamics lit_pwm.models.MLPActor", ["MLPActor", "is no Dynamics"]),
        ("--model.dynamics.hidden_dims 3", ["model.dynamics.hidden_dims", "'hidden_dim'"]),
        ("--data.tasks robot", ["data.tasks", "[robot]"]),
        ("--data.horizon 3.5", ["data.horizon", "3.5", "a whole number, 1 or more"]),
        ("--trainer.max_step 3", ["trainer.max_step'", "'max_steps'"]),
        ("--dat.store x.h5", ["'data.store'"]),
        ("--trainer 3", ["'trainer'", "--trainer.max_steps"]),
        ("--trainer foo", ["'trainer'", "--trainer.max_steps"]),
        ("--model 3", ["'model'", "--model.optimizer.lr"]),
        ("--model foo", ["WorldModelPretraining, PolicyLearning."]),
        ("--model os.system", ["os.system", "WorldModelPretraining, PolicyLearning."]),
        ("--data foo", ["Accepted: MultitaskDataModule."]),
        ("--trainer.callbacks 3", ["trainer.callbacks", "3", "class_path"]),
        ("--trainer.callbacks [RunProgres]", ["'RunProgress'", "class_path"]),
        ("--trainer.callbacks {}", ["trainer.callbacks", "class_path"]),
        ("--trainer.logger [foo]", ["trainer.logger", "CSVLogger"]),
        ("--trainer.logger CSVLogger", ["'trainer.logger.save_dir' is missing", "CSVLogger"]),
        ("--model.dynamics os.system", ["os.system", "MLPDynamics"]),
        ("--model.dynamics 3", ["model.dynamics", "MLPDynamics"]),
        ("--max_steps 4", ["max_steps", "'trainer.max_steps'"]),
        ("--lr 3", ["'model.optimizer.lr'"]),
        ("--store b.h5", ["'data.store'"]),
    ],
)
def test_an_option_that_is_refused_is_named(refused, store, given, says):
    text = refused(*FIT, "--data.store", store, *given.split())
    for word in says:
        assert word in text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--trainer", "{max_step: 3}", "'max_steps'"),
        ("--trainer.callbacks", "[{class_path: RunProgres}]", "'RunProgress'"),
        ("--trainer.callbacks", "{class_path: callbacks.RunProgress, init_args: {line_second: 3}}", "line_seconds"),
        ("--model.dynamics", "{class_path: nosuch.Dynamics}", "'nosuch'"),
    ],
)
def test_an_option_written_as_yaml_is_looked_into(refused, store, option, value, says):
    assert says in refused(*FIT, "--data.store", store, option, value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("evaluate --checkpoint x --episode 3", "Did you mean 'episodes'"),
        ("evaluate --checkpoint x --epi=3", "'--epi'"),
        ("collect --tasks a --episodes 2 --out x.h5 --behavior noise", "Did you mean 'behaviour'"),
        ("sweep x --dryrun", "Did you mean 'dry-run'"),
    ],
)
def test_options_of_other_verbs_are_spelt_in_full(refused, given, says):
    assert says in refused(*given.split())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", ["mine.yaml", "empty"]),
        ("# nothing\n", ["mine.yaml", "empty"]),
        ("data:\n  # store: x.h5\n", ["mine.yaml", "'data' has nothing below it"]),
        ("trainer:\n", ["mine.yaml", "'trainer' has nothing below it"]),
        ("max_steps: 5\n", ["mine.yaml", "'trainer.max_steps'"]),
        ("init_args: {lr: 1}\nlr: 3\n", ["mine.yaml", "'model.optimizer.lr'"]),
        ("- a\n- b\n", ["mine.yaml", "a list"]),
        ("hello\n", ["mine.yaml", "'hello'"]),
        ("trainer:\n\tmax_steps: 3\n", ["mine.yaml", "line 2"]),
        ("model: {a: [1\n  b: 2\n", ["mine.yaml", "line 2"]),
        ("trainer: {max_steps: 1}\ntrainer: {max_steps: 2}\n", ["mine.yaml", "'trainer' is there twice", "line 2"]),
        ("model: &a\n  init_args: *a\n", ["mine.yaml", "holds itself"]),
        ("trainer: " + "[" * 3000 + "]" * 3000, ["mine.yaml", "nested too deeply"]),
        (b"\x00\xff\xfe", ["mine.yaml", "utf-8"]),
        ('trainer: {logger: {class_path: CSVLogger, init_args: {save_dir: "a\\0"}}}', ["logger.save_dir", "NUL"]),
        ('model: {init_args: {initial_checkpoint: "a\\0"}}', ["initial_checkpoint", "mine.yaml", "NUL"]),
        ('data: {init_args: {tasks: ["a\\0"]}}', ["tasks", "NUL"]),
        ("model: {init_args: {initial_checkpoint: ~no-such-user-here/x}}", ["'./~no-such-user-here/x'"]),
        ("trainer:\n  callbacks:\n  - class_path: callbacks.RunProgres\n", ["mine.yaml", "'RunProgress'"]),
        (
            "trainer:\n  callbacks:\n  - class_path: callbacks.RunProgress\n    init_args: {line_second: 3}\n",
            ["mine.yaml", "'line_seconds'"],
        ),
        (
            "model:\n  init_args:\n    dynamics: {class_path: nosuch.Dynamics}\n",
            ["mine.yaml", "'nosuch'", "PYTHONPATH"],
        ),
    ],
)
def test_a_config_that_is_refused_is_named(refused, store, content, says, tmp_path_factory):
    config = tmp_path_factory.mktemp("configs") / "mine.yaml"
    config.write_bytes(content if isinstance(content, bytes) else content.encode())
    text = refused(*FIT, "--data.store", store, "--config", config)
    for word in says:
        assert word in text


def test_what_is_missing_is_named(refused):
    assert "No model is named" in refused("fit", "--data.store", "x.h5")
    assert "'data.store'" in refused("fit", "--config", "configs/pretrain.yaml")


def test_a_root_that_is_a_file_is_named(refused, store, tmp_path_factory):
    file = tmp_path_factory.mktemp("files") / "file"
    file.touch()
    assert str(file) in refused(*FIT, "--data.store", store, "--trainer.default_root_dir", file)


@pytest.mark.filterwarnings("ignore")
def test_a_run_without_a_logger_does_not_replace_another(store, tmp_path, capsys):
    argv = [*FIT, "--data.store", str(store), "--trainer.logger", "false", "--trainer.default_root_dir", str(tmp_path)]
    assert run(argv) == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert run(argv) == 2
    assert "the config of another run" in " ".join(capsys.readouterr().err.split())
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


COMPONENT = """
import torch
from lit_pwm.models import MLPDynamics

class Faulty(MLPDynamics):
    def __init__(self, latent_dim: int, action_dim: int, task_dim: int, where: str = "forward") -> None:
        super().__init__(latent_dim, action_dim, task_dim, hidden_dim=16)
        if where == "constructor":
            len(3)
        if where == "torch":
            torch.nn.Linear("wide", 3)
    @property
    def init_args(self) -> dict:
        return {}
    def forward(self, z, action, embedding):
        assert z.shape == (), "a fault of this class"
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("where", "error"), [("forward", AssertionError), ("constructor", TypeError), ("torch", TypeError)]
)
def test_a_fault_of_a_component_keeps_its_traceback(store, tmp_path, monkeypatch, where, error):
    (tmp_path / "faulty_component.py").write_text(COMPONENT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    argv = [*FIT, "--data.store", str(store), "--model.dynamics", "faulty_component.Faulty"]
    with pytest.raises(error):
        run([*argv, "--model.dynamics.where", where])


def raised_by(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


class Dying(IterableDataset):
    """Its process is killed as it begins."""

    def __iter__(self):
        os.kill(os.getpid(), signal.SIGKILL)
        yield 0


def test_a_killed_process_that_made_batches_is_told():
    error = raised_by(lambda: next(iter(DataLoader(Dying(), num_workers=1))))
    assert "data.num_workers" in str(explain(error))


def test_where_it_was_raised_decides():
    from lightning.pytorch import Trainer
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    def ours():
        raise ValueError("a fault of this line")

    def called_wrongly():
        Trainer(no_such_option=1)  # ty: ignore[unknown-argument]

    def wraps_ours():
        try:
            ours()
        except ValueError as error:
            raise raised_by(Trainer, False, "nosuch") from error

    assert explain(raised_by(ours)) is None
    assert explain(raised_by(called_wrongly)) is None
    assert isinstance(explain(MisconfigurationException("x")), LitPWMError)
    assert "nosuch" in str(explain(raised_by(lambda: Trainer(strategy="nosuch"))))
    for fault in (AssertionError("x"), KeyError("x"), ZeroDivisionError(), RecursionError(), RuntimeError("x")):
        assert explain(fault) is None
    assert "'/nowhere/x'" in str(explain(raised_by(open, "/nowhere/x")))
    assert "No space left" in str(explain(OSError(28, "No space left on device", "/disk/file")))
    assert "data.batch_size" in str(explain(MemoryError()))
