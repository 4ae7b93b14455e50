"""The optimizer: Adam, with weight decay, gradient clipping and a learning rate schedule."""

from dataclasses import dataclass
from typing import Any

from pipeline.backend import keras


@dataclass(frozen=True)
class OptimizerConfig:
    """Settings of the optimizer.

    Attributes:
        learning_rate: learning rate of Adam (Kingma and Ba 2015).
        schedule: "constant", or "cosine": falling to 0 over all epochs (Loshchilov and Hutter
            2017, "SGDR", without restarts).
        weight_decay: share of each weight subtracted at each step, times the learning rate
            (Loshchilov and Hutter 2019, "Decoupled weight decay regularization"); 0 turns it
            off.
        clip_norm: maximum norm of all gradients together (Pascanu et al. 2013); None turns
            clipping off.
    """

    learning_rate: float
    schedule: str = "constant"
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def build(self, steps: int) -> Any:
        """Return a `keras.optimizers.Optimizer` for at most `steps` training steps."""
        learning_rate: Any = self.learning_rate
        if self.schedule == "cosine":
            learning_rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
        if not self.weight_decay:
            return keras.optimizers.Adam(learning_rate, global_clipnorm=self.clip_norm)
        return keras.optimizers.AdamW(
            learning_rate, weight_decay=self.weight_decay, global_clipnorm=self.clip_norm
        )
