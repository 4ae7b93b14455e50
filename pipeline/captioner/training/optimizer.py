"""The optimizer: Adam, with what keeps it from overfitting and from jumping."""

from dataclasses import dataclass
from typing import Any

from pipeline.backend import keras


@dataclass(frozen=True)
class OptimizerConfig:
    """How weights follow gradients.

    Attributes:
        learning_rate: of Adam (Kingma and Ba 2015).
        schedule: "constant"; or "cosine", falling to 0 over all epochs (Loshchilov and Hutter
            2017, "SGDR", without restarts).
        weight_decay: share of a weight taken off at each step, times the learning rate
            (Loshchilov and Hutter 2019, "Decoupled weight decay regularization"); 0 is none.
        clip_norm: the length that all gradients together are cut to (Pascanu et al. 2013);
            None leaves them.
    """

    learning_rate: float
    schedule: str = "constant"
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def build(self, steps: int) -> Any:
        """Return a `keras.optimizers.Optimizer` for a training of at most `steps` steps."""
        rate: Any = self.learning_rate
        if self.schedule == "cosine":
            rate = keras.optimizers.schedules.CosineDecay(rate, steps)
        if not self.weight_decay:
            return keras.optimizers.Adam(rate, global_clipnorm=self.clip_norm)
        return keras.optimizers.AdamW(
            rate, weight_decay=self.weight_decay, global_clipnorm=self.clip_norm
        )
