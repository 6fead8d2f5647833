"""Correct tasks with one thing wrong each, which a check must notice."""

import gymnasium
import numpy as np
import task_checks as checks


class Fault(gymnasium.Wrapper):
    """A correct task with one thing wrong; the seed its environment was made with is `seed`."""

    def __init__(self, env: gymnasium.Env, seed: int = 0) -> None:
        super().__init__(env)
        self.seed, self.steps, self.episodes = seed, 0, 0

    def reset(self, *, seed=None, options=None):
        self.steps, self.episodes = 0, self.episodes + 1
        obs, info = self.env.reset(seed=self.use_seed(seed), options=options)
        return self.change_obs(obs), info

    def step(self, action):
        self.steps += 1
        obs, reward, terminated, truncated, info = self.env.step(self.change_action(action))
        return self.change_obs(obs), self.change_reward(reward), *self.change_end(terminated, truncated), info

    def use_seed(self, seed):
        return seed

    def change_action(self, action):
        return action

    def change_obs(self, obs):
        return obs

    def change_reward(self, reward):
        return reward

    def change_end(self, terminated, truncated):
        return terminated, truncated


class WideActionSpace(Fault):
    def __init__(self, env, seed=0):
        super().__init__(env, seed)
        self.action_space = gymnasium.spaces.Box(-2.0, 2.0, env.action_space.shape, np.float32)


class PaddedObservations(Fault):
    def change_obs(self, obs):
        return np.pad(obs, (0, 1))


class DoubleObservations(Fault):
    def change_obs(self, obs):
        return obs.astype(np.float64)


class UnseededNoise(Fault):
    def change_obs(self, obs):
        return obs + np.random.default_rng().normal(size=obs.shape).astype(np.float32)


class OneInitialState(Fault):
    def use_seed(self, seed):
        return 0


class DeafToSeeds(Fault):
    def use_seed(self, seed):
        return None


class TypeDependentActions(Fault):
    def change_action(self, action):
        return np.asarray(action) * (0.5 if np.asarray(action).dtype == np.float16 else 1.0)


class WrappedActions(Fault):
    def change_action(self, action):
        return (np.asarray(action) + 1) % 2 - 1 if np.abs(action).max() > 1 else action


class MendedActions(Fault):
    def change_action(self, action):
        return np.nan_to_num(np.resize(action, self.env.action_space.shape), posinf=1.0)


class ReusedBuffer(Fault):
    def change_obs(self, obs):
        if self.steps + self.episodes == 1:
            self.buffer = obs
        np.copyto(self.buffer, obs)
        return self.buffer


GENERAL_FAULTS: list[tuple[checks.Check, type[Fault]]] = [
    (checks.check_actions_are_bounded_by_one, WideActionSpace),
    (checks.check_observations_are_flat_finite_float32, PaddedObservations),
    (checks.check_observations_are_flat_finite_float32, DoubleObservations),
    (checks.check_same_seed_gives_the_same_episode, UnseededNoise),
    (checks.check_initial_state_is_random, OneInitialState),
    (checks.check_reset_with_a_seed_is_a_fresh_environment, DeafToSeeds),
    (checks.check_any_number_type_is_taken_as_an_action, TypeDependentActions),
    (checks.check_actions_beyond_the_bounds_act_as_the_bounds, WrappedActions),
    (checks.check_bad_actions_are_refused, MendedActions),
    (checks.check_returned_observations_are_the_callers, ReusedBuffer),
]
