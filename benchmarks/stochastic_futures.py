"""What may follow a state: the simulator's own futures under one action sequence, to score predictions against.

Held-out episodes of noise are rolled, and from some of their states the simulator goes on many times with the actions
of the episode and fresh randomness. Run as a script it makes such a file:

    python benchmarks/stochastic_futures.py cartpole-swingup-kicked FUTURES.npz
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from stochastic_outcomes import Futures

from datamodules.behaviours import make_behaviour
from lit_pwm.tasks import make_env
from lit_pwm.tasks.environment import DMControlEnv, TaskEnv

_MUJOCO: Any = mujoco  # whose compiled functions no type checker sees
_STATE = _MUJOCO.mjtState.mjSTATE_INTEGRATION  # all that the next step depends on, the solver's warm start too
FIRST_SEED = 2**31
"""Environment seed of the first held-out episode; collected stores draw theirs elsewhere."""


def held_out_futures(
    env: TaskEnv, episodes: int = 20, starts: int = 12, steps: int = 16, samples: int = 32, seed: int = 0
) -> Futures:
    """Roll held-out episodes of noise, and futures from some of their states.

    Args:
        env: of the task, made by `make_env`.
        episodes: held-out episodes.
        starts: states of each episode to predict from, at random times.
        steps: agent steps T of a future.
        samples: futures M of each state.
        seed: of everything; other seeds give other episodes.

    Raises:
        TypeError: the task is none of dm_control's, whose states can be put back.
    """
    if not isinstance(env, DMControlEnv):
        raise TypeError(f"futures are rolled from states of dm_control, and not of a {type(env).__name__}")
    windows, everything = [], []
    for number in range(episodes):
        rng = np.random.default_rng([seed, number])
        obs, action, states = _episode(env, FIRST_SEED + 1000 * seed + number, rng)
        everything.append(obs)
        for start in np.sort(rng.choice(len(action) - steps + 1, starts, replace=False)):
            stop = start + steps
            futures = [
                _future(env, states[start], action[start:stop], int(rng.integers(2**32))) for _ in range(samples)
            ]
            windows.append((obs[start], action[start:stop], obs[start + 1 : stop + 1], np.stack(futures), number))
    first, actions, outcome, futures, episode = zip(*windows, strict=True)
    pool = np.concatenate(everything)
    return Futures(
        np.stack(first),
        np.stack(actions, axis=1),
        np.stack(outcome, axis=1),
        np.stack(futures, axis=2),
        pool[np.random.default_rng([seed, episodes]).choice(len(pool), min(4096, len(pool)), replace=False)],
        np.array(episode),
    )


def _episode(env: DMControlEnv, seed: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations [L + 1, O], actions [L, A] and the simulator's states before them [L, S] of an episode of noise."""
    spec, behaviour = env.task_spec, make_behaviour("noise")
    behaviour.reset(spec.name, spec.action_dim, spec.episode_length, [rng])
    obs, actions, states = [env.reset(seed=seed)[0]], [], []
    for step in range(spec.episode_length):
        states.append(_state(env))
        actions.append(behaviour.act(obs[-1][None], step)[0])
        obs.append(env.step(actions[-1])[0])
    return np.stack(obs), np.stack(actions), np.stack(states)


def _future(env: DMControlEnv, state: np.ndarray, actions: np.ndarray, seed: int) -> np.ndarray:
    """Observations [T, O] that follow a state under actions [T, A], with randomness of this seed."""
    env.reset(seed=seed)
    _restore(env, state)
    return np.stack([env.step(action)[0] for action in actions])


def _state(env: DMControlEnv) -> np.ndarray:
    model, data = env.physics.model.ptr, env.physics.data.ptr
    state = np.empty(_MUJOCO.mj_stateSize(model, _STATE))
    _MUJOCO.mj_getState(model, data, state, _STATE)
    return state


def _restore(env: DMControlEnv, state: np.ndarray) -> None:
    model, data = env.physics.model.ptr, env.physics.data.ptr
    _MUJOCO.mj_setState(model, data, state, _STATE)
    _MUJOCO.mj_forward(model, data)  # dm_control's steps expect what derives from the state to be there
    _MUJOCO.mj_setState(model, data, state, _STATE)  # without forward()'s warm start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("out", type=Path)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--starts", type=int, default=12)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    futures = held_out_futures(make_env(args.task), args.episodes, args.starts, samples=args.samples, seed=args.seed)
    futures.save(args.out)
    print(f"{args.out}: {futures.samples.shape[0]} futures of {len(futures.obs)} states of {args.task}")


if __name__ == "__main__":
    main()
