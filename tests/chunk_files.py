"""Small chunks in TD-MPC2's layout, for tests."""

import numpy as np

from lit_pwm.tasks.registry import TASK_SETS, task_spec


def chunk_arrays(ids, rows, obs_width=24, seed=0):
    """Arrays of a chunk of episodes of some tasks: noise within their widths, NaN in row 0's action and reward."""
    drawn = np.random.default_rng(seed)
    shape = len(ids), rows
    arrays = {
        "obs": drawn.normal(size=(*shape, obs_width)).astype(np.float32),
        "action": drawn.uniform(-1, 1, (*shape, 6)).astype(np.float32),
        "reward": drawn.uniform(0, 2, shape).astype(np.float32),
        "task": np.repeat(np.array(ids, np.int64)[:, None], rows, axis=1),
    }
    for place, number in enumerate(ids):
        spec = task_spec(TASK_SETS["mt80"][number % 80])
        arrays["obs"][place, :, min(spec.obs_dim, obs_width) :] = 0
        arrays["action"][place, :, spec.action_dim :] = 0
    arrays["action"][:, 0] = arrays["reward"][:, 0] = np.nan
    return arrays
