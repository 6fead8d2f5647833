"""A task of the user's own: registered, built from their package, with other actuators and an early end."""

import pytest

from lit_pwm.tasks import TaskSpec, make_env, register
from lit_pwm.tasks import registry as registry_module

POLE = '''
from dm_control.rl import control
from dm_control.suite import cartpole
from dm_control.utils import containers

SUITE = containers.TaggedTasks()


class Falling(cartpole.Balance):
    """Ends when the pole points below the horizontal."""

    def get_termination(self, physics):
        return 0.0 if physics.pole_angle_cosine()[0] < 0 else None


@SUITE.add("mine")
def keep_up(random=None):
    xml, assets = cartpole.get_model_and_assets()
    physics = cartpole.Physics.from_xml_string(xml.replace(b'ctrlrange="-1 1"', b'ctrlrange="0 4"'), assets)
    return control.Environment(physics, Falling(swing_up=False, sparse=False, random=random), time_limit=10)
'''


@pytest.fixture
def keep_up(tmp_path, monkeypatch):
    package = tmp_path / "suite_of_mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "pole.py").write_text(POLE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry_module, "_SPECS", dict(registry_module._SPECS))
    register(TaskSpec("keep-up", "pole", "keep_up", obs_dim=5, action_dim=1, suite="suite_of_mine"))
    return make_env("keep-up", seed=3)


def test_actions_are_scaled_to_the_actuators_range(keep_up):
    keep_up.reset()
    for action, control in ((-1.0, 0.0), (0.0, 2.0), (0.5, 3.0), (1.0, 4.0)):
        keep_up.step([action])
        assert keep_up.unwrapped.physics.control() == pytest.approx([control])


def test_an_end_with_discount_zero_is_a_termination(keep_up):
    keep_up.reset()
    terminated, steps = False, 0
    while not terminated:
        obs, _, terminated, truncated, _ = keep_up.step([1.0])
        assert not truncated
        steps += 1
    assert 1 < steps < 200
    assert obs[1] < 0  # the cosine of the pole's angle: the observation is that of the end
    with pytest.raises(Exception, match="no episode is running"):
        keep_up.step([0.0])
    assert keep_up.reset()[0][1] > 0.9


def test_the_task_counts_as_custom(keep_up):
    assert keep_up.unwrapped.task_spec.custom
