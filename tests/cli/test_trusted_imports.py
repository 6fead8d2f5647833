"""What a checkpoint names is imported only by the user; modules in the current folder are found, and hide nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lit_pwm.checkpoints import DESCRIPTION_KEY, describe_world_model, load_world_model
from lit_pwm.cli.main import run, taken_out
from lit_pwm.errors import LitPWMError
from lit_pwm.models import MLPDynamics, WorldModel
from lit_pwm.models.component import factory_from
from lit_pwm.models.dynamics import Dynamics
from lit_pwm.runtime.imports import IMPORTS, importing

COMMAND = Path(sys.executable).with_name("lit-pwm")
README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
COMPONENT = next(text for text in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "Dynamics" in text)
CONFIG = next(text for text in re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL) if "my_package" in text)
TELLS = 'open(__file__ + ".imported", "w").close()\n'


def checkpoint(path, class_path=None, **options):
    """A world model's checkpoint whose description names another class or further options."""
    model = WorldModel({"a": (3, 2)}, MLPDynamics, latent_dim=8, encoder_dim=8, reward_dim=8, task_dim=4)
    described = describe_world_model(model)
    dynamics = described["world_model"]["dynamics"]
    dynamics["class_path"] = class_path or dynamics["class_path"]
    dynamics["init_args"] |= options
    state = {f"world_model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, DESCRIPTION_KEY: described}, path)
    return path


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Makes a module beside the test that leaves a mark when it is imported; returns whether it did."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name, text=""):
        (tmp_path / f"{name}.py").write_text(TELLS + text)
        return (tmp_path / f"{name}.py.imported").exists

    return make


OWN = "from lit_pwm.models import MLPDynamics\nclass Own(MLPDynamics):\n    pass\n"


@pytest.mark.parametrize("name", ["benchmarks.somewhere.Own", "stochastic_samplers.NoisyMLP"])
def test_a_studys_class_says_that_it_needs_the_checkout(tmp_path, monkeypatch, name):
    for imported in [one for one in sys.modules if one.partition(".")[0] == name.partition(".")[0]]:
        monkeypatch.delitem(sys.modules, imported)  # as other tests have left it
    file = checkpoint(tmp_path / "x.ckpt", name)
    with pytest.raises(LitPWMError, match=rf"{name}.*benchmarks/ in the checkout.*--import {name.rpartition('.')[0]}"):
        load_world_model(file)


def test_a_checkpoint_imports_nothing(module, tmp_path):
    imported = module("never_trusted", OWN)
    file = checkpoint(tmp_path / "x.ckpt", "never_trusted.Own")
    with pytest.raises(LitPWMError, match=r"never_trusted\.Own.*--import never_trusted.*import never_trusted"):
        load_world_model(file)
    assert not imported()
    assert "never_trusted" not in sys.modules


def test_what_is_imported_already_is_taken(module, tmp_path):
    module("trusted_by_script", OWN)
    file = checkpoint(tmp_path / "x.ckpt", "trusted_by_script.Own")
    import trusted_by_script  # ty: ignore[import-not-found]

    assert type(load_world_model(file).dynamics) is trusted_by_script.Own


def test_what_the_command_line_names_is_taken_here_and_in_other_processes(module, tmp_path):
    imported = module("trusted_by_option", OWN)
    described = {"class_path": "trusted_by_option.Own", "init_args": {}}
    with importing(["trusted_by_option"]):
        assert imported()
        factory_from(described, Dynamics)
        script = "import sys; from lit_pwm.models.component import *; from lit_pwm.models import Dynamics; "
        script += f"factory_from({described!r}, Dynamics)"
        subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert IMPORTS not in os.environ


NO_DYNAMICS = ["os.system", "subprocess.Popen", "builtins.dict", "lit_pwm.models.actors.MLPActor",
               "lit_pwm.models.dynamics.Dynamics", "blocked.Own", "lit_pwm." + "a." * 3000 + "X"]  # fmt: skip


@pytest.mark.parametrize("path", NO_DYNAMICS, ids=lambda path: path[:40])
def test_classes_of_another_kind_are_not_taken(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "blocked", None)
    with pytest.raises(LitPWMError, match=path):
        factory_from({"class_path": path, "init_args": {}}, Dynamics)


@pytest.mark.parametrize(
    "part", [{}, {"class_path": 3}, {"class_path": "lit_pwm.models.MLPDynamics", "init_args": [1]}]
)
def test_a_description_that_is_none_is_refused(part):
    with pytest.raises(LitPWMError, match="class_path and its init_args"):
        factory_from(part, Dynamics)


def test_classes_inside_classes_are_found():
    class_path = f"{__name__}.Outer.Inner"
    sys.modules.setdefault(__name__, sys.modules[Outer.__module__])
    assert isinstance(factory_from({"class_path": class_path}, Dynamics)(8, 2, 4), Outer.Inner)


class Outer:
    class Inner(MLPDynamics):
        pass


def test_options_that_the_class_does_not_have_are_named_and_can_be_ignored(tmp_path, monkeypatch):
    file = checkpoint(tmp_path / "x.ckpt", width_of_old=3, dropout=0.1)
    says = r"'width_of_old', 'dropout' of lit_pwm\.models.*--ignore-options width_of_old,dropout"
    with pytest.raises(LitPWMError, match=says):
        load_world_model(file)
    with pytest.raises(LitPWMError, match="'dropout'"):
        load_world_model(file, ignore_options=["width_of_old"])
    assert isinstance(load_world_model(file, ignore_options=["width_of_old", "dropout"]).dynamics, MLPDynamics)
    with importing([], ["width_of_old", "dropout"]):
        assert isinstance(load_world_model(file).dynamics, MLPDynamics)
    with pytest.raises(LitPWMError, match="'dropout'"):
        load_world_model(file)


def test_options_of_the_world_model_itself_are_named_too(tmp_path):
    file = checkpoint(tmp_path / "x.ckpt")
    content = torch.load(file, weights_only=True)
    content[DESCRIPTION_KEY]["world_model"]["ensemble"] = 5
    torch.save(content, file)
    with pytest.raises(LitPWMError, match="'ensemble' of the world model"):
        load_world_model(file)
    load_world_model(file, ignore_options=["ensemble"])


def test_the_option_is_read_wherever_it_stands():
    assert taken_out(["--import", "a", "fit", "--import=b.c", "--x", "1"], "--import") == (
        ["fit", "--x", "1"],
        ["a", "b.c"],
    )
    for argv in (["fit", "--import"], ["fit", "--import", "--x"], ["fit", "--import="]):
        with pytest.raises(LitPWMError, match="--import stands without a value"):
            taken_out(argv, "--import")


def test_a_module_that_is_not_there_is_named(refused):
    for name in ("no_such_module", "../module", "os.system", "module.py", "a b"):
        assert repr(name) in refused("data", "info", "x.h5", "--import", name)


def test_help_names_the_option(capsys):
    with pytest.raises(SystemExit):
        run(["evaluate", "--help"])
    assert "--import MODULE" in capsys.readouterr().out


def test_a_folder_of_the_users_hides_no_package_from_the_installed_command(store, tmp_path):
    for name in ("callbacks", "datamodules"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('hidden')")
    done = subprocess.run([COMMAND, "data", "info", store], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_the_readmes_component_through_fit_policy_and_evaluate(store, tmp_path):
    (tmp_path / "my_package.py").write_text(COMPONENT)
    (tmp_path / "mine.yaml").write_text(CONFIG)

    def command(line, code=0):
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
            "OMP_NUM_THREADS": "1"
        }
        done = subprocess.run(
            [COMMAND, *line.split()], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    short = f"--data.store {store} --data.horizon 4 --data.batch_size 16 --trainer.limit_val_batches 1 "
    short += "--trainer.max_steps 2 --trainer.val_check_interval 2 --trainer.enable_progress_bar false"
    tiny = "--config configs/world_model/mlp_tiny.yaml --model.latent_dim 16 --model.encoder_dim 16"
    command(f"fit --config configs/pretrain.yaml {tiny} --config mine.yaml {short} --trainer.default_root_dir model")
    (model,) = (tmp_path / "model").rglob("last.ckpt")
    policy = (
        f"fit --config configs/policy_learning.yaml --config configs/policy/mlp.yaml {short} --trainer.callbacks null "
    )
    policy += (
        f"--data.tasks [cartpole-swingup] --model.world_model_checkpoint {model} --trainer.default_root_dir policy"
    )
    assert "--import my_package" in command(policy, code=2)
    command(f"{policy} --import my_package")
    (trained,) = (tmp_path / "policy").rglob("last.ckpt")
    evaluate = f"evaluate --checkpoint {trained} --episodes 1 --out R.json"
    assert "--import my_package" in command(evaluate, code=2)
    command(f"{evaluate} --import my_package")
    assert (tmp_path / "R.json").is_file()
    collect = f"collect --tasks cartpole-swingup --episodes 2 --workers 2 --behaviour {trained} --out more.h5"
    command(f"{collect} --import my_package")
