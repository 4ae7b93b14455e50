"""Digests of graphs: what a network computes, apart from its weights."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.backend import keras
from pipeline.files import fingerprint

# Options that do not change what a layer computes from its weights: where its class is defined,
# and how its weights begin and are trained.
_WITHOUT_EFFECT = {"name", "module", "registered_name", "trainable", "build_config", "seed"}
_WITHOUT_EFFECT_SUFFIXES = ("_initializer", "_regularizer", "_constraint", "_config")


def graph_sha256(model: Any) -> str:
    """Digest the layers of a `keras.Model`, their options and connections.

    Names, weights and precision do not count, so that a model that is built again, in another
    process or for another engine has the same digest. An option that is None or False counts as
    absent: later versions of Keras add such options without another output. Of layers that are
    not Keras' own, the code counts too.
    """
    code = {_code(type(operation)) for operation in _operations(model)} - {""}
    return fingerprint([_normalized(model.get_config(), {}), sorted(code)])


def _normalized(value: Any, positions: Mapping[str, int]) -> Any:
    """Return a part of a model's config without names and options that have no effect.

    Args:
        value: the part.
        positions: name to position, of the layers of the (innermost) model that it belongs to.
    """
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":  # its shape and dtype follow
            return _connections(value["config"]["keras_history"], positions)
        layers = value.get("layers")
        if isinstance(layers, list):  # a model, whose layers have names of their own
            positions = {layer["config"]["name"]: i for i, layer in enumerate(layers)}
        return {
            key: _connections(item, positions)
            if key in ("input_layers", "output_layers")
            else _normalized(item, positions)
            for key, item in value.items()
            if item is not None and item is not False and not _has_no_effect(key, item)
        }
    if isinstance(value, list | tuple):
        return [_normalized(item, positions) for item in value]
    return value


def _connections(value: Any, positions: Mapping[str, int]) -> Any:
    """Return references to layers' outputs, [name, node, tensor], with positions for names."""
    if isinstance(value, str):
        return positions[value]
    if isinstance(value, list | tuple):
        return [_connections(item, positions) for item in value]
    return value


def _has_no_effect(key: str, item: Any) -> bool:
    # A layer's policy says in which precision it computes: the engine's business.
    is_policy = key == "dtype" and isinstance(item, Mapping)
    return is_policy or key in _WITHOUT_EFFECT or key.endswith(_WITHOUT_EFFECT_SUFFIXES)


def _operations(model: Any) -> Iterator[Any]:
    # A Sequential has layers only.
    for operation in getattr(model, "operations", model.layers):
        yield operation
        if isinstance(operation, keras.Model):
            yield from _operations(operation)


def _code(cls: type) -> str:
    """Return the code of a class that is not Keras' own, without comments and layout."""
    if cls.__module__.partition(".")[0] == "keras":
        return ""
    return ast.dump(ast.parse(textwrap.dedent(inspect.getsource(cls))))
