"""What acts while episodes are collected: noise that covers the state space, or a policy with noise.

A behaviour acts in several environments of one task in lockstep. All it draws for an episode comes from that episode's
own generator, so that the episode does not depend on which others run beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from lit_pwm.errors import LitPWMError, did_you_mean
from lit_pwm.paths import expanded, is_url
from lit_pwm.runtime.remote_files import local_file

Sequencer = Callable[[np.random.Generator, int, int], np.ndarray]
"""Draws the actions [T, A] of an episode from its generator, T and A."""


class Behaviour(Protocol):
    """Acts in B environments of one task.

    Attributes:
        source: what a store records of it.
        lockstep: environments it acts in side by side when collecting.
    """

    source: str
    lockstep: int

    def reset(self, task: str, action_dim: int, length: int, generators: Sequence[np.random.Generator]) -> None:
        """Begin an episode of at most `length` steps in each environment, each with its own generator."""
        ...

    def act(self, obs: np.ndarray, step: int) -> np.ndarray:
        """Actions [B, A] in [-1, 1] for observations [B, O] at a step of the episodes."""
        ...


# -- noise: sequences [T, A] of one episode ---------------------------------------------------------------------------
def uniform(generator: np.random.Generator, length: int, width: int) -> np.ndarray:
    """Independent, uniform in [-1, 1]."""
    return generator.uniform(-1, 1, (length, width))


def ornstein_uhlenbeck(generator: np.random.Generator, length: int, width: int) -> np.ndarray:
    """Ornstein-Uhlenbeck noise of unit scale, with a correlation time of 3 to 50 steps."""
    decay = np.exp(-1 / np.exp(generator.uniform(np.log(3), np.log(50))))
    shocks = generator.standard_normal((length, width))
    noise, value = np.empty((length, width)), generator.standard_normal(width)
    for step in range(length):
        value = decay * value + np.sqrt(1 - decay**2) * shocks[step]
        noise[step] = value
    return noise


def pink(generator: np.random.Generator, length: int, width: int) -> np.ndarray:
    """Noise of unit scale whose power falls as 1/f (Eberhard et al. 2023, Pink noise is all you need)."""
    frequencies = np.arange(length // 2 + 1)
    amplitude = np.where(frequencies > 0, np.maximum(frequencies, 1) ** -0.5, 0.0)[:, None]
    shape = (len(frequencies), width)
    spectrum = amplitude * (generator.standard_normal(shape) + 1j * generator.standard_normal(shape))
    noise = np.fft.irfft(spectrum, length, axis=0)
    return noise / max(float(noise.std()), 1e-8)


def bang_bang(generator: np.random.Generator, length: int, width: int) -> np.ndarray:
    """Full force one way or the other in each entry, held for a random time of 1 to 30 steps."""
    noise = np.empty((length, width))
    for entry in range(width):
        step = 0
        while step < length:
            hold = int(generator.integers(1, 31))
            noise[step : step + hold, entry] = generator.choice((-1.0, 1.0))
            step += hold
    return noise


def square_wave(generator: np.random.Generator, length: int, width: int) -> np.ndarray:
    """A square wave of period 6 to 80 steps with a random phase; in half of the episodes a window of it is zero."""
    period = np.exp(generator.uniform(np.log(6), np.log(80)))
    phase = generator.uniform(0, 1, width)
    amplitude = generator.uniform(0.5, 1)
    noise = amplitude * np.where((np.arange(length)[:, None] / period + phase) % 1 < 0.5, 1.0, -1.0)
    if generator.random() < 0.5:
        start, stop = np.sort(generator.integers(0, length + 1, 2))
        noise[start:stop] = 0
    return noise


def _scaled(kind: Sequencer) -> Sequencer:
    return lambda generator, length, width: generator.uniform(0.3, 1.2) * kind(generator, length, width)


_MIX = (_scaled(ornstein_uhlenbeck), _scaled(pink), bang_bang, square_wave)


def mixed(generator: np.random.Generator, length: int, width: int) -> np.ndarray:
    """One of Ornstein-Uhlenbeck, pink, held bang-bang and square wave, drawn for the whole episode."""
    return _MIX[int(generator.integers(len(_MIX)))](generator, length, width)


# -- behaviours -------------------------------------------------------------------------------------------------------
class Noise:
    """Acts without looking.

    Args:
        source: what a store records of it.
        sequence: draws the actions [T, A] of an episode from its generator, T and A.
    """

    lockstep = 1

    def __init__(self, source: str, sequence: Sequencer) -> None:
        self.source, self._sequence = source, sequence

    def reset(self, task: str, action_dim: int, length: int, generators: Sequence[np.random.Generator]) -> None:
        """Draw all actions of the episodes."""
        sequences = [self._sequence(generator, length, action_dim) for generator in generators]
        self._actions = np.clip(np.stack(sequences, axis=1), -1, 1).astype(np.float32)

    def act(self, obs: np.ndarray, step: int) -> np.ndarray:
        """The actions drawn for this step."""
        return self._actions[step]


class NoisyPolicy:
    """Acts as a saved policy does, with exploration noise added.

    In each episode the noise is Ornstein-Uhlenbeck or pink, of a scale drawn from 0 to 0.6; in three of ten episodes,
    noise alone acts for a window of 10 to 80 steps, which takes the episode to states that the policy would avoid.

    Args:
        checkpoint: a checkpoint of policy learning.
        tasks: that it is to act in, which are the policy's where its file does not say them.
    """

    lockstep = 10

    def __init__(self, checkpoint: str, tasks: Sequence[str] = ()) -> None:
        from lit_pwm.checkpoints import load_policy

        self._policy = load_policy(checkpoint, acting_in=list(tasks) or None)
        self.source = policy_source(checkpoint)

    def reset(self, task: str, action_dim: int, length: int, generators: Sequence[np.random.Generator]) -> None:
        """Draw the noise of the episodes."""
        self._task = task
        noise = np.empty((length, len(generators), action_dim))
        alone = np.zeros((length, len(generators), 1), bool)
        for i, generator in enumerate(generators):
            kind = (ornstein_uhlenbeck, pink)[int(generator.integers(2))]
            noise[:, i] = generator.uniform(0, 0.6) * kind(generator, length, action_dim)
            if generator.random() < 0.3:
                start = int(generator.integers(length))
                stop = start + int(generator.integers(10, 81))
                alone[start:stop, i] = True
                noise[start:stop, i] = mixed(generator, length, action_dim)[start:stop]
        self._noise, self._alone = noise, alone

    def act(self, obs: np.ndarray, step: int) -> np.ndarray:
        """The policy's deterministic actions with noise, or noise alone."""
        with _one_thread():
            chosen = self._policy.act(obs, self._task, deterministic=True)
        actions = np.where(self._alone[step], 0.0, chosen)
        return np.clip(actions + self._noise[step], -1, 1).astype(np.float32)


@contextmanager
def _one_thread() -> Generator[None, None, None]:
    """One torch thread: faster for a few rows, and sums do not depend on how they would be shared out."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_NOISES = {"random": uniform, "noise": mixed}


def check_behaviour(name: str) -> None:
    """Make sure that a behaviour is a noise or an existing file.

    Raises:
        LitPWMError: it is neither.
    """
    if name not in _NOISES and not is_url(name) and not expanded(name).is_file():
        raise LitPWMError(
            f"The behaviour {name!r} is neither {' nor '.join(map(repr, _NOISES))}, nor a policy's checkpoint that "
            f"exists. {did_you_mean(name, _NOISES)}"
        )


def make_behaviour(name: str, tasks: Sequence[str] = ()) -> Behaviour:
    """The behaviour of a name: `random`, `noise`, or the path of a policy's checkpoint.

    Args:
        name: of the behaviour.
        tasks: that it is to act in, which are a policy's where its file does not say them.

    Raises:
        LitPWMError: it is none of these, or the file holds no policy.
    """
    check_behaviour(name)
    return Noise(name, _NOISES[name]) if name in _NOISES else NoisyPolicy(name, tasks)


def is_noise(name: str) -> bool:
    """Whether a behaviour is a noise and no policy."""
    return name in _NOISES


def behaviour_identity(name: str) -> str:
    """What tells a behaviour from another: its source, in which a checkpoint's content counts and not where it lies."""
    return name if is_noise(name) else policy_source(name)


def trained_tasks(name: str, tasks: Sequence[str] = ()) -> tuple[str, ...] | None:
    """The tasks that a behaviour was trained for; None for noise, which was not trained.

    Args:
        name: of the behaviour.
        tasks: as for `make_behaviour`.

    Raises:
        LitPWMError: the file is no checkpoint of ours.
    """
    if name in _NOISES:
        return None
    from lit_pwm.checkpoints import read_description

    return tuple(read_description(name, list(tasks) or None).get("trained_tasks", ()))


def policy_source(checkpoint: str) -> str:
    """What a store records of a policy: the file's name and the beginning of its SHA-256."""
    with local_file(checkpoint) as place, open(place, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    return f"policy {Path(checkpoint).name[-200:]} {digest}"
