"""What a store or a checkpoint may name as the environment of a task: nothing that the user has not asked for."""

import sys

import gymnasium
import point_mass
import pytest

from lit_pwm.errors import LitPWMError
from lit_pwm.runtime.imports import importing
from lit_pwm.tasks import TaskSpec, make_env, register, registry, task_spec
from lit_pwm.tasks.file_specs import make_known
from lit_pwm.tasks.stored_specs import stored_spec

FILE = "the checkpoint 'x.ckpt'"
MADE = {"make": f"{point_mass.__name__}:make", "kwargs": {"field": 3.0}}
DIMS = (8, 2)


@pytest.fixture(autouse=True)
def nothing_known_before(monkeypatch):
    monkeypatch.setattr(registry, "_OF_FILES", {})
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    yield
    sys.modules.pop("never_asked_for", None)


def test_an_environment_of_a_module_that_the_user_has_imported_is_made():
    spec = make_known("mine", MADE | {"episode_length": 7, "score_range": [0, 7]}, DIMS, FILE)
    env = make_env("mine")
    assert env.unwrapped.task_spec == task_spec("mine") == spec
    assert (spec.low, spec.high, spec.episode_length, spec.score_range) == ((-2, 0), (2, 6), 7, (0, 7))
    assert env.unwrapped.env.unwrapped.field == 3
    assert make_known("mine", stored_spec(spec), DIMS, FILE) == spec
    with pytest.raises(LitPWMError, match=r"'mine' is \{'episode_length': 8\} in .* and \{'episode_length': 7\}"):
        make_known("mine", MADE | {"episode_length": 8}, DIMS, FILE)


def test_one_of_a_module_that_is_not_imported_is_not(tmp_path, monkeypatch):
    (tmp_path / "never_asked_for.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\nfrom point_mass import make\ndef mine():\n    return make()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    stored = {"make": "never_asked_for:mine"}
    with pytest.raises(LitPWMError) as told:
        make_known("mine", stored, DIMS, FILE)
    for part in ("'mine'", FILE, "'never_asked_for'", "--import never_asked_for"):
        assert part in str(told.value)
    assert not (tmp_path / "ran").exists()
    assert "never_asked_for" not in sys.modules
    with importing(["never_asked_for"]):
        assert make_known("mine", stored, DIMS, FILE).make == "never_asked_for:mine"
        with pytest.raises(LitPWMError, match=r"defines no function 'make'.*imported from elsewhere"):
            make_known("other", {"make": "never_asked_for:make"}, DIMS, FILE)


REFUSED = [
    "os:system", "posix:system", "os.path:join", "subprocess:Popen", "builtins:eval", "builtins:exec", "runpy:run_path",
    "a:b.c", "a.b", "a:b:c", ":system", "os:", "os system", "os:system()", "", 3, None, ["os", "system"],
    "__main__:run",
    "lit_pwm.tasks.allowed_imports:allow", "lit_pwm.tasks.registry:sys.modules", "lit_pwm.runtime.imports:os.system",
    "lit_pwm.cli.main:run", "lit_pwm.tasks.rendering:os.system", "lit_pwm.tasks.custom:x", "datamodules:collect",
    "gymnasium.envs.registration:load_env_creator", "gymnasium.envs.registration:make", "gymnasium:make_vec",
    "gymnasium.utils:seeding.np_random", "dm_control.suite:load", "numpy:load", "torch:load", "torch.hub:load",
    "importlib:import_module", "pickle:loads", "point_mass:np.load", "point_mass:gymnasium.make",
    "point_mass:also", "point_mass:OrderedDict", "point_mass:Box", "point_mass:__builtins__",
    "point_mass:PointMass.reset.x",
]  # fmt: skip


@pytest.mark.parametrize("make", REFUSED, ids=str)
def test_nothing_else_is_called(make, tmp_path):
    trace = tmp_path / "ran"
    kwargs = {"command": f"touch {trace}", "name": f"os:system('touch {trace}')", "module": "os", "id": "os:X-v0"}
    with pytest.raises(LitPWMError) as told:
        make_known("mine", {"make": make, "kwargs": kwargs}, DIMS, FILE)
    assert "'mine'" in str(told.value)
    assert FILE in str(told.value)
    assert not trace.exists()
    assert "mine" not in registry._OF_FILES
    with pytest.raises(KeyError):
        registry._SPECS["mine"]


@pytest.mark.parametrize("make", ["os:system", "posix:system", "builtins:exec", "point_mass:np.load"])
def test_not_even_where_its_module_is_named(make, tmp_path):
    with importing([make.partition(":")[0]]), pytest.raises(LitPWMError, match=f"{make}.*--import"):
        make_known("mine", {"make": make, "kwargs": {"command": f"touch {tmp_path / 'ran'}"}}, DIMS, FILE)
    assert not list(tmp_path.iterdir())


def test_the_maker_of_a_registered_task_may_be_named_with_other_arguments():
    register(TaskSpec("known", make="point_mass:with_actions", kwargs={"low": [-1, 0], "high": [1, 1]}))
    stored = {"make": "point_mass:with_actions", "kwargs": {"low": [0, 0], "high": [1, 5]}}
    assert make_known("mine", stored, DIMS, FILE).high == (1, 5)


def test_a_registered_task_must_be_what_the_file_says():
    register(TaskSpec("mine", make="point_mass:make", kwargs={"field": 3.0}))
    assert make_known("mine", MADE, DIMS, FILE) == task_spec("mine")
    assert make_known("mine", {}, DIMS, FILE) == task_spec("mine")
    with pytest.raises(LitPWMError, match=r"is \{'kwargs': \{'field': 2.0\}\} in .*x.ckpt' and .*'field': 3.0"):
        make_known("mine", MADE | {"kwargs": {"field": 2.0}}, DIMS, FILE)
    with pytest.raises(LitPWMError, match=r"'cup-catch' is \{'make'|'cup-catch' is \{'action_repeat': 1"):
        make_known("cup-catch", {"domain": "ball_in_cup", "action_repeat": 1}, DIMS, FILE)


GYM = {"make": "gymnasium:make"}


def test_an_id_of_gymnasiums_is_made_with_its_arguments(tmp_path):
    stored = GYM | {"kwargs": {"id": "PointMass-v0", "field": 4.0}}
    make_known("gym:PointMass-v0", stored, DIMS, FILE)
    assert make_env("gym:PointMass-v0").unwrapped.env.unwrapped.field == 4
    assert make_known("gym:PointMass-v3", None, DIMS, FILE).episode_length == 40


@pytest.mark.parametrize(
    "kwargs",
    [
        {"id": "os:X-v0"},
        {"id": "lit_pwm.cli.main:X-v0"},
        {"id": {"entry_point": "os:system", "id": "X-v0", "kwargs": {"command": "touch ran"}}},
        {"id": '{"id": "X-v0", "entry_point": "os:system", "additional_wrappers": []}'},
        {"id": "PointMass-v0", "entry_point": "os:system", "command": "touch ran"},
        {"id": "PointMass-v0", "additional_wrappers": [{"name": "x", "entry_point": "os:system", "kwargs": {}}]},
        {"id": "no module:X-v0"},
        {},
    ],
    ids=str,
)
def test_an_id_imports_nothing_and_entry_points_are_not_followed(kwargs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LitPWMError) as told:
        make_known("gym:PointMass-v0", GYM | {"kwargs": kwargs}, DIMS, FILE)
    assert "gym:" in str(told.value)
    assert not list(tmp_path.iterdir())
    if kwargs.get("id") == "os:X-v0":
        assert FILE in str(told.value)
        assert "--import os" in str(told.value)


def test_names_of_tasks_import_nothing(tmp_path):
    for name in ("gym:os:X-v0", "gym:never_asked_for:X-v0"):
        module = name.split(":")[1]
        with pytest.raises(LitPWMError, match=f"'{module}'.*--import {module}"):
            task_spec(name)
        with pytest.raises(LitPWMError, match=f"'{module}'.*--import {module}"):
            make_known(name, {}, DIMS, FILE)
    assert "never_asked_for" not in sys.modules
    assert not [one for one in gymnasium.registry if one.startswith("X-")]


@pytest.mark.parametrize(
    ("suite", "domain"),
    [("os", "path"), ("never", "asked_for"), ("dm_control.suite", "walker:run"), ("dm_control.suite", "../x"),
     ("lit_pwm.tasks", "allowed_imports"), ("lit_pwm.cli", "main"), (3, "x"), (None, "x"), ("point_mass", "np")],
)  # fmt: skip
def test_suites_are_dm_controls_ours_or_asked_for(suite, domain):
    with pytest.raises(LitPWMError, match=r"The task 'mine' of the checkpoint 'x.ckpt'"):
        make_known("mine", {"suite": suite, "domain": domain, "task": "x"}, DIMS, FILE)


def test_a_task_of_dm_controls_is_made_as_the_file_says():
    stored = stored_spec(task_spec("cup-catch")) | {"episode_length": 9}
    assert make_known("short-cup", stored, DIMS, FILE).episode_length == 9
    assert make_env("short-cup").unwrapped.task_spec.obs_dim == 8


@pytest.mark.parametrize(
    "wrong",
    [{"kwargs": 3}, {"kwargs": ["os"]}, {"low": 3}, {"low": ["x", 1]}, {"episode_length": "9"}, {"score_range": [1]},
     {"action_repeat": -1}, {"kwargs": {"render_mode": "human"}}],
)  # fmt: skip
def test_a_spec_that_is_none_is_said(wrong):
    with pytest.raises(LitPWMError, match=f"The task 'mine' of {FILE} has a spec that is none"):
        make_known("mine", MADE | wrong, DIMS, FILE)


def test_the_bounds_of_stock_tasks_are_what_stores_say():
    for name in ("cup-catch", "cheetah-jump"):
        env = make_env(name).unwrapped
        stored = stored_spec(env.task_spec)
        assert stored["low"] == env._action_low.tolist()
        assert stored["high"] == (env._action_low + 2 * env._action_scale).tolist()
