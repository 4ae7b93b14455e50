"""The optimizer: Adam, with weight decay, gradient clipping and a learning rate schedule."""

from dataclasses import dataclass
from functools import partial
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
        return Adam(
            learning_rate, weight_decay=self.weight_decay or None, global_clipnorm=self.clip_norm
        )


class Adam(keras.optimizers.Adam):  # type: ignore[misc]  # Keras has no types
    """Keras' Adam, or with weight decay its AdamW, in fewer passes on TensorFlow.

    Keras makes a dozen arrays as large as each weight, TensorFlow's own function none.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a weight and its moments; see Keras' method of this name."""
        if keras.config.backend() != "tensorflow":
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf  # noqa: PLC0415  (not installed for other backends)

        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index].value, self._velocities[index].value
        if isinstance(gradient, tf.IndexedSlices):  # of an embedding: a row for each word read
            words, positions = tf.unique(gradient.indices)
            row_sums = partial(
                tf.math.unsorted_segment_sum, segment_ids=positions, num_segments=tf.size(words)
            )
            sums, squares = row_sums(gradient.values), row_sums(gradient.values**2)
            # Keras sums the squares of a word's rows, the function below squares their sum.
            difference = (1 / self.beta_2 - 1) * (squares - sums**2)
            velocity.scatter_add(tf.IndexedSlices(difference, words))
            gradient = tf.convert_to_tensor(tf.IndexedSlices(sums, words, gradient.dense_shape))
        step = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=momentum.handle,
            v=velocity.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )
