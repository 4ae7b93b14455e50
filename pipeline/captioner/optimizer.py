"""The optimizer: Adam, with what keeps it from overfitting and from jumping."""

from dataclasses import dataclass
from typing import Any

from pipeline.backend import keras


@dataclass(frozen=True)
class Optimization:
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
        decay = self.weight_decay or None
        return _Adam(rate, weight_decay=decay, global_clipnorm=self.clip_norm, name="adam")


class _Adam(keras.optimizers.Adam):  # type: ignore[misc]  # Keras has no types
    """Keras' Adam, a weight's step in one pass: on TensorFlow Keras' own takes twelve."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if keras.config.backend() != "tensorflow":
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf  # noqa: PLC0415  (not installed for other backends)

        if isinstance(gradient, tf.IndexedSlices):
            # Rows of words' vectors. Of a word that a batch has many times Keras adds up squares
            # of gradients, not gradients, for the second moment: frequent words learn faster, and
            # the loss falls in fewer epochs.
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )
