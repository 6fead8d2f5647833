"""The scores of samples of stochastic dynamics, against what happened and what the simulator says might have."""

from __future__ import annotations

import numpy as np
from stochastic_outcomes import Futures

from lit_pwm.measures.scores import crps, energy_score, rank_histogram, spread_error_ratio, spread_ratio

STEPS = (1, 4, 16)
"""Open-loop steps after which scores are recorded."""


def scores(samples: np.ndarray, futures: Futures) -> dict[str, object]:
    """What a record says of samples [M, T, N, O] of standardised observations.

    Distances are divided by √O, so that they are in standard deviations whatever the number of entries.
    """
    width = np.sqrt(samples.shape[-1])
    energy = energy_score(samples, futures.outcome) / width
    last = max(STEPS) - 1
    return {
        "energy_score": {str(k): float(energy[k - 1].mean()) for k in STEPS},
        "energy_score_episodes": {
            str(k): [float(energy[k - 1, futures.episode == e].mean()) for e in np.unique(futures.episode)]
            for k in STEPS
        },
        "crps": {str(k): crps(samples[:, k - 1], futures.outcome[k - 1]).mean(0).tolist() for k in STEPS},
        "mean_error": {
            str(k): float(np.square(samples[:, k - 1].mean(0) - futures.outcome[k - 1]).mean()) for k in STEPS
        },
        "spread_ratio": spread_ratio(samples, futures.samples).tolist(),
        "spread_error_ratio": spread_error_ratio(samples, futures.outcome).tolist(),
        "rank_histogram": rank_histogram(samples[:, last], futures.outcome[last]).tolist(),
    }
