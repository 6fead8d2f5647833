"""docs/environments.md, line by line: an environment of one's own through a store, a world model, a policy, returns."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from gymnasium.utils.env_checker import check_env
from support import ROOT
from task_checks import GENERAL_CHECKS

from datamodules import EpisodeStore
from lit_pwm.checkpoints import DESCRIPTION_KEY
from lit_pwm.tasks import make_env, registry

PAGE = (ROOT / "docs" / "environments.md").read_text()
COMMAND = Path(sys.executable).with_name("lit-pwm")
(MODULE,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
BLOCKS = [
    block
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    if not language
]
LINES = [line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]


def command(line, folder, code=0):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "LIT_PWM_IMPORT")}
    done = subprocess.run(
        [COMMAND, *shlex.split(line)[1:]],
        cwd=folder, capture_output=True, text=True, check=False, env=environment | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).split())


def test_the_module_is_as_short_as_said():
    assert len(MODULE.splitlines()) < 50
    assert "lost" in MODULE


@pytest.fixture
def ball(tmp_path, monkeypatch):
    """Makes the page's environment, in this process."""
    (tmp_path / "my_robots.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    monkeypatch.delitem(sys.modules, "my_robots", raising=False)
    importlib.import_module("my_robots")
    yield partial(make_env, "ball")
    sys.modules.pop("my_robots", None)


@pytest.mark.filterwarnings("ignore:.*A Box observation space (min|max)imum value is -?infinity.*")
def test_the_pages_environment_is_one_by_gymnasiums_own_checker_and_ends(ball):
    check_env(ball(), skip_render_check=True)
    env = ball(seed=1)
    obs, _ = env.reset()
    assert (obs.shape, obs.dtype) == ((3,), "float32")
    steps, terminated, truncated = 0, False, False
    while not (terminated or truncated):
        obs, reward, terminated, truncated, _ = env.step([1.0])
        steps += 1
    assert (terminated, truncated) == (True, False)
    assert steps < 100
    assert abs(obs[0]) > 1.5
    assert reward == pytest.approx(1 - abs(obs[0]) / 1.5, abs=1e-5)


@pytest.mark.parametrize("check", GENERAL_CHECKS, ids=lambda check: check.__name__)
def test_the_pages_environment_conforms_as_all_tasks_do(check, ball):
    check(ball)


@pytest.mark.long
def test_the_page_works_as_it_stands(tmp_path):
    (tmp_path / "my_robots.py").write_text(MODULE)
    said = [command(line.replace("configs/", f"{ROOT}/configs/"), tmp_path) for line in LINES]
    assert "my_robots:make(length=1.5)" in said[2]
    result = json.loads((tmp_path / "ball.json").read_text())["tasks"]["ball"]
    assert len(result["returns"]) == 10
    assert 0 < result["normalised"] < 1
    store = EpisodeStore(tmp_path / "ball.h5")
    spec = store.task_specs["ball"]
    assert (spec["low"], spec["high"]) == ([pytest.approx(-0.2)], [pytest.approx(0.2)])
    assert (spec["episode_length"], spec["score_range"], spec["action_repeat"]) == (100, [0, 100], 1)
    assert store.terminated().any()

    # Without --import the module is not imported, and the error says what to do.
    evaluate = LINES[-1].replace(" --import my_robots", "")
    last = next((tmp_path / "ball/policy").rglob("last.ckpt"))
    for part in ("'ball'", "last.ckpt", "'my_robots'", "--import my_robots"):
        assert part in command(evaluate, tmp_path, code=2)
    # Evaluation in training of what the store alone knows: refused likewise, before the first update.
    fit = LINES[-2].replace(" --import my_robots", "").replace("ball/policy", "refused")
    told = command(fit.replace("configs/", f"{ROOT}/configs/"), tmp_path, code=2)
    for part in ("'ball'", "ball.h5", "'my_robots'", "--import my_robots"):
        assert part in told
    # And without the registration the spec is the file's.
    (tmp_path / "my_robots.py").write_text(MODULE[: MODULE.index("register(TaskSpec(")])
    again = command(LINES[-1].replace("ball.json", "again.json"), tmp_path)
    assert json.loads((tmp_path / "again.json").read_text())["tasks"]["ball"]["returns"] == result["returns"], again
    collect = (
        f"lit-pwm collect --tasks ball --episodes 2 --workers 2 --behaviour {last} --out more.h5 --import my_robots"
    )
    command(collect, tmp_path)
    made = EpisodeStore(tmp_path / "more.h5").task_specs["ball"]
    assert made == spec
    # A hostile file of the same networks.
    content = torch.load(last, weights_only=True)
    for make in ("os:system", "my_robots:np.load"):
        content[DESCRIPTION_KEY]["task_specs"]["ball"] |= {"make": make, "kwargs": {"command": "touch ran"}}
        torch.save(content, tmp_path / "hostile.ckpt")
        told = command("lit-pwm evaluate --checkpoint hostile.ckpt --import my_robots", tmp_path, code=2)
        for part in ("'ball'", "hostile.ckpt", make.partition(":")[0], "--import"):
            assert part in told
        assert not (tmp_path / "ran").exists()
    # The task that is registered is another one than the file's.
    (tmp_path / "my_robots.py").write_text(MODULE.replace('{"length": 1.5}', '{"length": 2.5}'))
    told = command(LINES[-1], tmp_path, code=2)
    assert "'length': 1.5" in told
    assert "'length': 2.5" in told
