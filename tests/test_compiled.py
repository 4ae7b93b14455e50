from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.captioner.compiled import CompiledDecoder, load_compiled
from pipeline.captioner.decoder import Decoder
from pipeline.captioner.model import Model
from pipeline.captioner.search import Steps, search
from pipeline.captions.vocabulary import START
from pipeline.features import graphs
from tests.captioner_fixtures import make_decided_decoder, make_vocabulary, vectors
from tests.conftest import ENCODING, slow_imports

pytest.importorskip("openvino", reason="the extra `openvino` is not installed")

SHAPES = {"pooled": (6,), "grid": (4, 6)}
IDS = np.array([[START, 4, 5], [START, 9, 9], [START, 8, 4], *[[START, 6, 7]] * 4], np.int32)


def model_of(decoder: Decoder) -> Model:
    return Model.of({7: (decoder, {})}, ENCODING, make_vocabulary().fingerprint, {})


def never() -> Decoder:
    raise AssertionError("it is converted again")


@pytest.fixture(scope="module", params=SHAPES)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Decoder, CompiledDecoder]:
    """A decoder on Keras and its twin in OpenVINO."""
    decoder = make_decided_decoder(feature_shape=SHAPES[request.param])
    folder = tmp_path_factory.mktemp("artifacts")
    described = model_of(decoder).description
    return decoder, load_compiled(folder, described, described.members[0], lambda: decoder)


def steps(decoder: Steps, features: Any, ids: npt.NDArray[np.int32]) -> list[npt.NDArray[Any]]:
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
    described = model_of(decoder).description
    compiled = load_compiled(tmp_path, described, described.members[0], lambda: decoder)
    wanted, found = (steps(either, vectors(count=7), IDS) for either in (decoder, compiled))
    for array, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(array, other, atol=1e-4, rtol=1e-4)


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
    return sorted(path.name for path in (folder / graphs.FOLDER).iterdir())


def test_a_decoder_is_converted_once_and_again_for_other_weights(tmp_path: Path) -> None:
    first, second = make_decided_decoder(seed=1), make_decided_decoder(seed=2)
    description = model_of(first).description
    features = vectors()[:3]
    load_compiled(tmp_path, description, description.members[0], lambda: first)
    files = [
        f"decoder_{part}.{kind}" for part in ("start", "step") for kind in ("bin", "json", "xml")
    ]
    assert names(tmp_path) == files
    again = load_compiled(tmp_path, description, description.members[0], never)
    np.testing.assert_allclose(again.begin(features)[0], first.begin(features)[0], atol=1e-6)
    changed = model_of(second).description
    other = load_compiled(tmp_path, changed, changed.members[0], lambda: second)
    np.testing.assert_allclose(other.begin(features)[0], second.begin(features)[0], atol=1e-6)
    assert not np.allclose(second.begin(features)[0], first.begin(features)[0], atol=1e-3)
    assert names(tmp_path) == files


def test_only_the_damaged_half_of_a_decoder_is_converted_again(tmp_path: Path) -> None:
    decoder = make_decided_decoder()
    description = model_of(decoder).description
    load_compiled(tmp_path, description, description.members[0], lambda: decoder)
    folder = tmp_path / graphs.FOLDER
    start = (folder / "decoder_start.json").stat().st_mtime_ns
    (folder / "decoder_step.bin").write_bytes(b"damaged")
    compiled = load_compiled(tmp_path, description, description.members[0], lambda: decoder)
    assert (folder / "decoder_start.json").stat().st_mtime_ns == start
    features = vectors()[:3]
    for array, other in zip(
        steps(compiled, features, IDS[:3]), steps(decoder, features, IDS[:3]), strict=True
    ):
        np.testing.assert_allclose(array, other, atol=1e-5, rtol=1e-5)


def test_a_compiled_decoder_imports_no_keras(tmp_path: Path) -> None:
    decoder = make_decided_decoder()
    description = model_of(decoder).description
    load_compiled(tmp_path, description, description.members[0], lambda: decoder)
    folder = tmp_path / graphs.FOLDER
    code = (
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from pipeline.captioner.compiled import CompiledDecoder\n"
        "from pipeline.captioner.search import search\n"
        f"folder = Path({str(folder)!r})\n"
        "decoder = CompiledDecoder(folder / 'decoder_start.xml', folder / 'decoder_step.xml')\n"
        "print(len(search(decoder, np.ones((2, 6), np.float32), 3, 4)))\n"
    )
    assert slow_imports(code) == ("2", ["PIL", "numpy", "openvino"])
