"""The eleven added tasks against formulas written out here a second time, from raw MuJoCo arrays."""

from pathlib import Path

import mujoco
import numpy as np
import pytest
from dm_control import suite

from lit_pwm.tasks import TASK_SETS, make_env, task_spec

PROBES = Path(__file__).parent.parent / "oracles" / "probe"
CUSTOM = [name for name in TASK_SETS["mt30"] if task_spec(name).custom]


def gauss(x, low, high, margin):
    distance = max(low - x, x - high, 0.0) / margin
    return 0.1 ** (distance**2)


def lin(x, low, high, margin, value):
    distance = max(low - x, x - high, 0.0) / margin
    return max(0.0, 1 - (1 - value) * distance)


class State:
    """Readings of one state, taken without dm_control's named indexing."""

    def __init__(self, physics):
        self.model, self.data = physics.model.ptr, physics.data.ptr

    def body(self, name):
        return mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_BODY, name)

    def geom(self, name):
        return mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_GEOM, name)

    def height(self, body):
        return self.data.xpos[self.body(body), 2]

    @property
    def speed(self):
        """Horizontal velocity of the whole body's centre of mass: momentum over mass, by finite masses."""
        mujoco.mj_subtreeVel(self.model, self.data)
        return self.data.subtree_linvel[self.body("torso"), 0]


def backwards_walker(state, speed):
    upright = (1 + state.data.xmat[state.body("torso"), 8]) / 2
    standing = (3 * gauss(state.height("torso"), 1.2, np.inf, 0.6) + upright) / 4
    return standing * (5 * lin(state.speed, -np.inf, -speed, speed / 2, 0.5) + 1) / 6


def one_foot_cheetah(state, raised):
    up = (3 * gauss(state.height(raised), 1.2, np.inf, 0.6) + 2 * gauss(state.height("torso"), 1.2, np.inf, 0.6)) / 5
    return up * (5 * lin(state.speed, 6, np.inf, 6, 0) + 1) / 6


def jumping_cheetah(state):
    def foot(name):
        high = gauss((state.height("torso") + state.height(name)) / 2, 1.2, np.inf, 0.6)
        return (5 * high + lin(state.speed, -0.5, 0.5, 0.5, 0)) / 6

    return (foot("bfoot") + foot("ffoot")) / 2


def backwards_hopper(state):
    height = state.data.xipos[state.body("torso"), 2] - state.data.xipos[state.body("foot"), 2]
    return (0.6 <= height <= 2) * lin(state.speed, -np.inf, -1, 0.5, 0.5)


def three_link_reacher(state, radius):
    finger, target = (state.data.geom_xpos[state.geom(name), :2] for name in ("finger", "target"))
    return float(np.hypot(*(finger - target)) <= radius + 0.01)


def spinning_ball(state):
    site = mujoco.mj_name2id(state.model, mujoco.mjtObj.mjOBJ_SITE, "target")
    dx, _, dz = state.data.site_xpos[site] - state.data.xpos[state.body("ball")]
    inside = abs(dx) < 0.05 - 0.025 and abs(dz) < 0.05 - 0.025
    speed = np.hypot(*state.data.qvel[2:4])
    return (1 - inside) * (lin(np.hypot(dx, dz), 0.5, np.inf, 0.25, 0.5) + 2 * lin(speed, 6, np.inf, 3, 0.5)) / 3


# Task → (formula, task whose probes hold states of this domain).
FORMULAS = {
    "walker-walk-backwards": (lambda s: backwards_walker(s, 1), "walker-walk-backwards"),
    "walker-run-backwards": (lambda s: backwards_walker(s, 8), "walker-run-backwards"),
    "cheetah-run-backwards": (lambda s: lin(s.speed, -np.inf, -8, 8, 0), "cheetah-run-backwards"),
    "cheetah-run-front": (lambda s: one_foot_cheetah(s, "bfoot"), "cheetah-run-front"),
    "cheetah-run-back": (lambda s: one_foot_cheetah(s, "ffoot"), "cheetah-run-front"),
    "cheetah-jump": (jumping_cheetah, "cheetah-run-front"),
    "hopper-hop-backwards": (backwards_hopper, "hopper-hop"),
    "reacher-three-easy": (lambda s: three_link_reacher(s, 0.05), "reacher-three-easy"),
    "reacher-three-hard": (lambda s: three_link_reacher(s, 0.015), "reacher-three-easy"),
    "cup-spin": (spinning_ball, "cup-spin"),
    "pendulum-spin": (lambda s: lin(abs(s.data.qvel[0]), 9, np.inf, 4.5, 0.5), "pendulum-swingup"),
}


@pytest.mark.parametrize("name", CUSTOM)
def test_reward_is_the_formula(name):
    formula, probes = FORMULAS[name]
    env = make_env(name)
    env.reset()
    physics, task = env.unwrapped.physics, env.unwrapped.task
    rng = np.random.default_rng(0)
    rewards = []
    with np.load(PROBES / f"{probes}.npz") as probe:
        targets = probe["model_geom_pos"]
        for i, state in enumerate(probe["state"]):
            state = state.copy()
            half = physics.model.nq
            if name in ("hopper-hop-backwards", "cheetah-run-back", "cheetah-jump") and i % 2:
                state[half] = -state[half] * rng.uniform(0.2, 1.0)  # mirrored and slowed, to reach the other speeds
            if name == "cheetah-jump" and i % 3 == 0:
                state[half:] *= 0.02  # nearly at rest, where staying on the spot is rewarded
            if name == "reacher-three-hard" and i % 2:
                # The small target is rarely hit by chance: put it near where the finger will be.
                physics.set_state(state)
                physics.forward()
                finger = physics.data.geom_xpos[physics.model.name2id("finger", "geom"), :2]
                spot = finger + rng.uniform(-0.02, 0.02, 2)
            else:
                spot = targets[i % len(targets)][physics.model.name2id("target", "geom"), :2] if "three" in name else ()
            if len(spot):
                physics.named.model.geom_pos["target", ["x", "y"]] = spot
            physics.set_state(state)
            physics.forward()
            reward = task.get_reward(physics)
            assert np.ndim(reward) == 0
            assert float(reward) == pytest.approx(float(formula(State(physics))), rel=0, abs=1e-12), i
            rewards.append(float(reward))
    assert min(rewards) < 0.1
    assert max(rewards) > 0.45  # the states span the reward
    assert len(set(np.round(rewards, 6))) >= (2 if "three" in name else 20)


@pytest.mark.parametrize("name", CUSTOM)
def test_tag_and_time_limit(name):
    spec = task_spec(name)
    env = make_env(name)
    domain = __import__(f"{spec.suite}.{spec.domain}", fromlist=["SUITE"])
    assert spec.task in domain.SUITE.tagged("custom")
    # dm_control's own environment ends after the same number of control steps as ours.
    assert env.unwrapped._environment._step_limit == pytest.approx(spec.episode_length * spec.action_repeat)


@pytest.mark.parametrize(
    ("name", "stock"),
    [
        ("walker-run-backwards", "run"),
        ("cheetah-jump", "run"),
        ("hopper-hop-backwards", "hop"),
        ("pendulum-spin", "swingup"),
    ],
)
def test_physics_and_initial_states_are_the_stock_domains(name, stock):
    env = make_env(name, seed=7)
    reference = suite.load(task_spec(name).domain, stock, task_kwargs={"random": 7})
    for _ in range(2):
        obs, _ = env.reset()
        parts = reference.reset().observation
        np.testing.assert_array_equal(obs, np.concatenate([np.ravel(v) for v in parts.values()]).astype(np.float32))
        for action in np.random.default_rng(0).uniform(-1, 1, (10, task_spec(name).action_dim)):
            env.step(action)
            for _ in range(2):
                reference.step((action + 1.0) - 1.0)
        np.testing.assert_array_equal(env.unwrapped.physics.get_state(), reference.physics.get_state())


@pytest.mark.parametrize(("name", "radius"), [("reacher-three-easy", 0.05), ("reacher-three-hard", 0.015)])
def test_three_link_reacher_model(name, radius):
    env = make_env(name, seed=3)
    physics = env.unwrapped.physics
    rng = np.random.RandomState(3)
    for _ in range(3):
        env.reset()
        limit = np.deg2rad(80)
        pose = [rng.uniform(-np.pi, np.pi), rng.uniform(-limit, limit), rng.uniform(-limit, limit)]
        angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.20)
        np.testing.assert_allclose(physics.get_state(), [*pose, 0, 0, 0], rtol=0, atol=1e-12)
        target = physics.named.model.geom_pos["target"]
        np.testing.assert_allclose(target, [distance * np.sin(angle), distance * np.cos(angle), 0.01], atol=1e-12)
        assert physics.named.model.geom_size["target", 0] == radius
    bodies = [physics.model.id2name(i, "body") for i in range(physics.model.nbody)]
    assert bodies == ["world", "arm0", "arm1", "hand", "finger"]
    motors = [physics.model.id2name(i, "actuator") for i in range(physics.model.nu)]
    assert motors == ["shoulder0", "shoulder1", "wrist"]
    np.testing.assert_array_equal(physics.model.actuator_gear[:, 0], 0.05)
    physics.set_state(np.zeros(6))
    physics.forward()
    np.testing.assert_allclose(physics.named.data.geom_xpos["finger"], [0.27, 0, 0.01], atol=1e-12)  # full reach


def test_cup_spin_starts_inside_nine_times_out_of_ten():
    env = make_env("cup-spin", seed=0)
    physics = env.unwrapped.physics
    starts = []
    for _ in range(200):
        env.reset()
        assert physics.data.ncon == 0
        ball = physics.data.qpos[2:4]
        assert -0.2 <= ball[0] <= 0.2
        assert 0.2 <= ball[1] <= 0.5
        starts.append(physics.in_target())
    # Where it may start outside it nearly always does (the inside is 4 % of the area): binomial(200, .9) ± 4 sigma.
    assert 0.82 < np.mean(starts) < 0.98
