"""Names, order and dimensions of the tasks, and what happens to wrong names."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lit_pwm.errors import LitPWMError
from lit_pwm.tasks import TASK_SETS, TaskSpec, action_mask, register, registered_tasks, task_spec
from lit_pwm.tasks import registry as registry_module

ORACLES = Path(__file__).parent.parent / "oracles" / "env"


def test_task_sets_have_tdmpc2s_order():
    totals = json.loads((ORACLES / "totals.json").read_text())
    assert TASK_SETS["mt30"] == tuple(totals)
    assert TASK_SETS["mt80"][:30] == TASK_SETS["mt30"]
    assert [len(TASK_SETS[name]) for name in ("mt30", "mt80", "demo")] == [30, 80, 4]
    # Landmarks of the published index order.
    assert TASK_SETS["mt30"].index("cup-catch") == 12
    assert TASK_SETS["mt30"].index("walker-walk-backwards") == 19
    assert [TASK_SETS["mt80"].index(f"mw-{task}") for task in ("assembly", "peg-insert-side", "hand-insert")] == [
        30,
        53,
        79,
    ]
    assert TASK_SETS["demo"] == ("cartpole-swingup", "cup-catch", "cartpole-balance", "reacher-easy")


def test_every_task_of_every_set_is_registered_once():
    assert registered_tasks() == (*TASK_SETS["mt80"], *TASK_SETS["stochastic"], *TASK_SETS["failing"])
    assert not {*TASK_SETS["stochastic"], *TASK_SETS["failing"]} & set(TASK_SETS["mt80"])
    assert len(set(TASK_SETS["mt80"])) == 80
    for names in TASK_SETS.values():
        assert [task_spec(name).name for name in names] == list(names)


def test_dimensions():
    specs = [task_spec(name) for name in TASK_SETS["mt30"]]
    assert max(spec.obs_dim for spec in specs) == 24
    assert max(spec.action_dim for spec in specs) == 6
    assert all(sum(width for _, width in spec.obs_keys) == spec.obs_dim for spec in specs)
    assert [spec.custom for spec in specs] == [False] * 19 + [True] * 11
    assert all((spec.episode_length, spec.action_repeat, spec.max_return) == (500, 2, 1000.0) for spec in specs)
    meta_world = [task_spec(name) for name in TASK_SETS["mt80"][30:]]
    assert {(s.obs_dim, s.action_dim, s.episode_length) for s in meta_world} == {(39, 4, 100)}


def test_unknown_task_names_the_nearest():
    with pytest.raises(LitPWMError, match=r"'walker-wolk'.*Did you mean 'walker-walk'"):
        task_spec("walker-wolk")


def test_a_task_can_be_registered_and_pickled(monkeypatch):
    monkeypatch.setattr(registry_module, "_SPECS", dict(registry_module._SPECS))
    spec = TaskSpec("swimmer-six", "swimmer", "swimmer6", obs_dim=25, action_dim=5)
    register(spec)
    register(spec)  # again the same: nothing to complain of
    assert task_spec("swimmer-six") is spec
    assert registered_tasks()[-1] == "swimmer-six"
    assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(LitPWMError, match=r"'swimmer-six' is registered already"):
        register(TaskSpec("swimmer-six", "swimmer", "swimmer15", obs_dim=61, action_dim=14))
    with pytest.raises(LitPWMError, match=r"'walker-walk' is registered already"):
        register(TaskSpec("walker-walk", "walker", "walk", obs_dim=3, action_dim=1))


def test_action_mask():
    np.testing.assert_array_equal(action_mask([2, 1, 4]), [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    mask = action_mask([task_spec(name).action_dim for name in TASK_SETS["mt80"]], width=6)
    assert mask.shape == (80, 6)
    assert mask.dtype == np.float32
    np.testing.assert_array_equal(mask[79], [1, 1, 1, 1, 0, 0])
    with pytest.raises(LitPWMError, match="width 3"):
        action_mask([2, 4], width=3)
    with pytest.raises(LitPWMError, match="at least one"):
        action_mask([])


def test_looking_up_tasks_loads_no_simulator():
    code = (
        "import sys, os; os.environ.pop('MUJOCO_GL', None); import lit_pwm.tasks as t; t.task_spec('cup-spin');"
        "print([m for m in ('torch', 'mujoco', 'dm_control', 'gymnasium') if m in sys.modules], "
        "'MUJOCO_GL' in os.environ)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"
