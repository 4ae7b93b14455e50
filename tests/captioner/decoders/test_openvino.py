import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.captioner.decoders.decoder import DECODERS, Decoder
from pipeline.captioner.decoders.openvino import CompiledDecoder, load_compiled
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.guidance import with_guidance
from pipeline.captioner.generation.interfaces import StepDecoder
from pipeline.captioner.model_folder import Model
from pipeline.storage import openvino_graphs
from pipeline.text.vocabulary import START
from tests.conftest import FEATURE_SPEC, slow_imports
from tests.support.captioner import make_decided_decoder, make_vocabulary, vectors

pytest.importorskip("openvino", reason="the extra `openvino` is not installed")

IDS = np.array([[START, 4, 5], [START, 9, 9], [START, 8, 4], *[[START, 6, 7]] * 4], np.int32)


def model_of(decoder: Decoder) -> Model:
    return Model.from_decoders({7: (decoder, {})}, FEATURE_SPEC, make_vocabulary().fingerprint, {})


def never() -> Decoder:
    raise AssertionError("it is converted again")


def load(folder: Path, decoder: Decoder, build: Callable[[], Decoder]) -> CompiledDecoder:
    description = model_of(decoder).config
    return load_compiled(folder, description, description.members[0], build)


@dataclass(frozen=True)
class Converted:
    """A decoder on Keras and a folder with its graphs; a test takes a copy of the folder."""

    decoder: Decoder
    folder: Path

    def copied(self, folder: Path) -> Path:
        return Path(shutil.copytree(self.folder, folder / "artifacts"))


def convert(decoder: Decoder, folder: Path) -> Converted:
    load(folder, decoder, lambda: decoder)
    return Converted(decoder, folder)


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return convert(make_decided_decoder(), tmp_path_factory.mktemp("pooled"))


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return convert(make_decided_decoder(feature_shape=(4, 6)), tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module", params=["pooled", "grid"])
def pair(request: pytest.FixtureRequest) -> tuple[Decoder, CompiledDecoder]:
    """A decoder on Keras and its twin in OpenVINO."""
    converted: Converted = request.getfixturevalue(request.param)
    return converted.decoder, load(converted.folder, converted.decoder, never)


def steps(
    decoder: StepDecoder, features: Any, ids: npt.NDArray[np.int32]
) -> list[npt.NDArray[Any]]:
    """Run a decoder over words; return the first state, all logits and the last state."""
    state = decoder.begin(features)
    found = list(state)
    for words in ids.T:
        logits, state = decoder.advance(np.ascontiguousarray(words), state)
        found.append(logits)
    return [*found, *state]


def test_a_decoder_with_all_options_is_that_of_keras(tmp_path: Path) -> None:
    options: dict[str, Any] = {"tied_embeddings": True, "feature_norm": "l2", "feature_noise": 0.5}
    decoder = make_decided_decoder(name="init_inject", **options)
    described = model_of(decoder).config
    compiled = load_compiled(tmp_path, described, described.members[0], lambda: decoder)
    wanted, found = (steps(either, vectors(count=7), IDS) for either in (decoder, compiled))
    for array, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(array, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", list(DECODERS))
def test_every_decoder_searches_as_on_keras_guided_or_not(name: str, tmp_path: Path) -> None:
    decoder = make_decided_decoder(
        name=name, feature_shape=(4, 6), feature_norm="center", spatial_residual_size=2
    )
    compiled = load(tmp_path, decoder, lambda: decoder)
    features = vectors((4, 6), count=7)
    for strength in (0.0, 0.5):
        wanted, found = (
            search(with_guidance(either, strength), features, 3, 6)
            for either in (decoder, compiled)
        )
        assert [[h.ids for h in beam] for beam in found] == [
            [h.ids for h in beam] for beam in wanted
        ]
        for state, other in zip(
            compiled.begin_unconditional(features),
            decoder.begin_unconditional(features),
            strict=True,
        ):
            np.testing.assert_allclose(state, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 7])
def test_states_and_logits_are_those_of_keras(
    pair: tuple[Decoder, CompiledDecoder], count: int
) -> None:
    decoder, compiled = pair
    features = vectors(decoder.config.feature_shape, count)
    wanted = steps(decoder, features, IDS[:count])
    found = steps(compiled, features, IDS[:count])
    assert len(wanted) == 3 + 3 + 3
    assert [array.shape for array in found] == [array.shape for array in wanted]
    assert np.abs(wanted[3]).max() > 0.5
    for array, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(array, other, atol=1e-5, rtol=1e-5)


def test_one_batch_leaves_what_another_was_given(pair: tuple[Decoder, CompiledDecoder]) -> None:
    decoder, compiled = pair
    features = vectors(decoder.config.feature_shape, 8)
    state = compiled.begin(features[:7])
    logits, after = compiled.advance(IDS[:, 1], state)
    kept = [array.copy() for array in (*state, logits, *after)]
    steps(compiled, features[7:], IDS[:1])
    compiled.advance(IDS[:, 2], after)
    for array, before in zip((*state, logits, *after), kept, strict=True):
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("width", [1, 3])
def test_a_search_finds_what_it_finds_on_keras(
    pair: tuple[Decoder, CompiledDecoder], width: int
) -> None:
    decoder, compiled = pair
    features = vectors(decoder.config.feature_shape, 7)
    wanted, found = (search(one, features, width, 6) for one in (decoder, compiled))
    assert len({hypotheses[0].ids for hypotheses in wanted}) > 1
    for some, others in zip(found, wanted, strict=True):
        assert [(h.ids, h.finished) for h in some] == [(h.ids, h.finished) for h in others]
        np.testing.assert_allclose(
            [h.log_probability for h in some], [h.log_probability for h in others], atol=1e-4
        )


def names(folder: Path) -> Sequence[str]:
    return sorted(path.name for path in (folder / openvino_graphs.FOLDER).iterdir())


def test_a_decoder_is_converted_once_and_again_for_other_weights(
    pooled: Converted, tmp_path: Path
) -> None:
    first, second = pooled.decoder, make_decided_decoder(seed=2)
    folder = pooled.copied(tmp_path)
    features = vectors()[:3]
    files = [
        f"decoder_7_{part}.{kind}"
        for part in ("blind", "start", "step")
        for kind in ("bin", "json", "xml")
    ]
    assert names(folder) == files
    again = load(folder, first, never)
    np.testing.assert_allclose(again.begin(features)[0], first.begin(features)[0], atol=1e-6)
    other = load(folder, second, lambda: second)
    np.testing.assert_allclose(other.begin(features)[0], second.begin(features)[0], atol=1e-6)
    assert not np.allclose(second.begin(features)[0], first.begin(features)[0], atol=1e-3)
    assert names(folder) == files


def test_only_the_damaged_half_of_a_decoder_is_converted_again(
    pooled: Converted, tmp_path: Path
) -> None:
    decoder, folder = pooled.decoder, pooled.copied(tmp_path)
    made = folder / openvino_graphs.FOLDER
    start = (made / "decoder_7_start.json").stat().st_mtime_ns
    (made / "decoder_7_step.bin").write_bytes(b"damaged")
    compiled = load(folder, decoder, lambda: decoder)
    assert (made / "decoder_7_start.json").stat().st_mtime_ns == start
    features = vectors()[:3]
    for array, other in zip(
        steps(compiled, features, IDS[:3]), steps(decoder, features, IDS[:3]), strict=True
    ):
        np.testing.assert_allclose(array, other, atol=1e-5, rtol=1e-5)


def test_a_compiled_decoder_imports_no_keras(pooled: Converted) -> None:
    folder = pooled.folder / openvino_graphs.FOLDER
    code = (
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from pipeline.captioner.decoders.openvino import CompiledDecoder\n"
        "from pipeline.captioner.generation.beam_search import search\n"
        f"folder = Path({str(folder)!r})\n"
        "parts = ('start', 'blind', 'step')\n"
        "decoder = CompiledDecoder(*(folder / f'decoder_7_{part}.xml' for part in parts))\n"
        "print(len(search(decoder, np.ones((2, 6), np.float32), 3, 4)))\n"
    )
    assert slow_imports(code) == ("2", ["PIL", "numpy", "openvino"])
