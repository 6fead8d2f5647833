"""TD-MPC2's model sizes, and a `tiny` one that trains in a minute on one CPU core.

Widths from TD-MPC2 (arXiv 2310.16828, appendix); parameter counts of the world model part are pinned by a test.
"""

from __future__ import annotations

from dataclasses import dataclass

from lit_pwm.errors import LitPWMError, did_you_mean


@dataclass(frozen=True)
class WorldModelSize:
    """Widths of a world model.

    Attributes:
        latent_dim: width of the latent.
        encoder_dim: width of the encoder's hidden layers.
        encoder_layers: number of the encoder's hidden layers.
        dynamics_dim: width of the dynamics' two hidden layers.
        reward_dim: width of the reward head's two hidden layers.
        task_dim: width of the task embedding.
    """

    latent_dim: int
    encoder_dim: int
    encoder_layers: int
    dynamics_dim: int
    reward_dim: int
    task_dim: int


SIZES: dict[str, WorldModelSize] = {
    "tiny": WorldModelSize(128, 256, 1, 256, 128, 16),
    "1m": WorldModelSize(128, 256, 1, 384, 384, 96),
    "5m": WorldModelSize(512, 256, 1, 512, 512, 64),
    "19m": WorldModelSize(512, 1024, 2, 1024, 1024, 64),
    "48m": WorldModelSize(768, 1792, 3, 1792, 1792, 64),
    "317m": WorldModelSize(1376, 4096, 4, 4096, 4096, 96),
}
"""Sizes by name, with the widths that TD-MPC2 uses for MT30 (for MT80: task_dim 96 throughout, latent 768 at 19m)."""


def world_model_size(name: str) -> WorldModelSize:
    """The widths of a named size.

    Raises:
        LitPWMError: no such size.
    """
    if name not in SIZES:
        raise LitPWMError(f"There is no world model size {name!r}. {did_you_mean(name, SIZES)}")
    return SIZES[name]
