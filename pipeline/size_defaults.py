"""Defaults that depend on the size of the data set: the values of params that are null.

More captions teach a larger decoder, which needs less regularization and fewer epochs.
docs/results.md compares both columns.
"""

from collections.abc import Mapping
from typing import Any

MANY_CAPTIONS = 10_000  # training captions

# By section and key of params.yaml: the values for fewer and for many training captions.
SIZE_DEFAULTS: Mapping[str, Mapping[str, tuple[Any, Any]]] = {
    "tokenize": {"min_count": (2, 5)},
    "train": {
        "units": (256, 512),
        "batch_size": (64, 128),
        "learning_rate": (0.001, 0.002),
        "schedule": ("constant", "cosine"),
        "weight_decay": (0.3, 0.1),
        "epochs": (100, 12),
        "average_epochs": (4, 1),
    },
    "evaluate": {"guidance": (0.2, 0.0), "neighbour_rerank_weight": (0.0, 1.0)},
}


def fill_nulls(values: Any, training_captions: int) -> Any:
    """Return the contents of params.yaml with the defaults for this size in place of null.

    Args:
        values: what the file contains; if it is no mapping of mappings, nothing is replaced.
        training_captions: the number of captions of training photos.
    """
    if not isinstance(values, dict):
        return values
    column = int(training_captions >= MANY_CAPTIONS)
    filled = dict(values)
    for name, defaults in SIZE_DEFAULTS.items():
        section = values.get(name)
        if isinstance(section, dict):
            nulls = {key: pair[column] for key, pair in defaults.items() if key in section}
            filled[name] = section | {k: v for k, v in nulls.items() if section[k] is None}
    return filled
