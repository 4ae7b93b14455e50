import errno
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.captioner.decoders.decoder import DECODERS, Decoder
from pipeline.captioner.decoders.openvino import OpenVINODecoder, load_openvino_decoder
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.guidance import with_guidance
from pipeline.captioner.generation.interfaces import StepDecoder
from pipeline.captioner.model_folder import Model
from pipeline.storage import openvino_graphs
from pipeline.text.vocabulary import START
from tests.conftest import FEATURE_SPEC, slow_imports
from tests.support.captioner import make_peaked_decoder, make_vocabulary, vectors

pytest.importorskip("openvino", reason="the extra `openvino` is not installed")

IDS = np.array([[START, 4, 5], [START, 9, 9], [START, 8, 4], *[[START, 6, 7]] * 4], np.int32)


def not_called() -> Decoder:
    raise AssertionError("the decoder is converted again")


def load(folder: Path, decoder: Decoder, load_decoder: Callable[[], Decoder]) -> OpenVINODecoder:
    """Load a decoder from a folder with its weights, which are written if they are new."""
    model = Model.from_decoders({7: (decoder, {})}, FEATURE_SPEC, make_vocabulary().fingerprint, {})
    model.save(folder / "model")
    loaded = load_openvino_decoder(folder, model.config, model.config.members[0], load_decoder)
    assert isinstance(loaded, OpenVINODecoder)
    return loaded


@dataclass(frozen=True)
class Converted:
    """A decoder on Keras and the folder of its converted graphs, which tests copy."""

    decoder: Decoder
    folder: Path

    def copy_to(self, folder: Path) -> Path:
        return Path(shutil.copytree(self.folder, folder / "artifacts"))


def convert(decoder: Decoder, folder: Path) -> Converted:
    load(folder, decoder, lambda: decoder)
    return Converted(decoder, folder)


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return convert(make_peaked_decoder(), tmp_path_factory.mktemp("pooled"))


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    return convert(make_peaked_decoder(feature_shape=(4, 6)), tmp_path_factory.mktemp("grid"))


@pytest.fixture(scope="module", params=["pooled", "grid"])
def pair(request: pytest.FixtureRequest) -> tuple[Decoder, OpenVINODecoder]:
    """A decoder on Keras and the same one in OpenVINO."""
    converted: Converted = request.getfixturevalue(request.param)
    return converted.decoder, load(converted.folder, converted.decoder, not_called)


def run_steps(
    decoder: StepDecoder, features: Any, ids: npt.NDArray[np.int32]
) -> list[npt.NDArray[Any]]:
    """Run a decoder over words; return the first state, all logits and the last state."""
    state, rows = decoder.begin(features), np.arange(len(ids))
    arrays = [*state.context, state.hidden, state.cell]
    for position in range(ids.shape[1]):
        logits, state = decoder.advance(ids[:, : position + 1], rows, rows, state)
        arrays.append(logits)
    return [*arrays, *state.context, state.hidden, state.cell]


def check_equal(arrays: Any, expected: Any, tolerance: float) -> None:
    for array, expected_array in zip(arrays, expected, strict=True):
        np.testing.assert_allclose(array, expected_array, atol=tolerance, rtol=tolerance)


def test_a_decoder_with_all_options_computes_what_keras_does(tmp_path: Path) -> None:
    options: dict[str, Any] = {"tied_embeddings": True, "feature_norm": "l2", "feature_noise": 0.5}
    decoder = make_peaked_decoder(name="init_inject", **options)
    converted = load(tmp_path, decoder, lambda: decoder)
    expected, arrays = (run_steps(d, vectors(count=7), IDS) for d in (decoder, converted))
    check_equal(arrays, expected, 1e-4)


@pytest.mark.parametrize("name", list(DECODERS))
def test_every_decoder_searches_as_on_keras_with_guidance_and_without(
    name: str, tmp_path: Path
) -> None:
    decoder = make_peaked_decoder(
        name=name, feature_shape=(4, 6), feature_norm="center", spatial_residual_size=2
    )
    converted = load(tmp_path, decoder, lambda: decoder)
    features = vectors((4, 6), count=7)
    for weight in (0.0, 0.5):
        expected, beams = (
            search(with_guidance(d, weight), features, 3, 6) for d in (decoder, converted)
        )
        assert [[h.ids for h in beam] for beam in beams] == [
            [h.ids for h in beam] for beam in expected
        ]
    states = [d.begin_unconditional(features) for d in (converted, decoder)]
    arrays, expected_arrays = ([*s.context, s.hidden, s.cell] for s in states)
    check_equal(arrays, expected_arrays, 1e-4)


@pytest.mark.parametrize("count", [1, 7])
def test_states_and_logits_equal_those_of_keras(
    pair: tuple[Decoder, OpenVINODecoder], count: int
) -> None:
    decoder, converted = pair
    features = vectors(decoder.config.feature_shape, count)
    expected = run_steps(decoder, features, IDS[:count])
    arrays = run_steps(converted, features, IDS[:count])
    assert len(expected) == 3 + 3 + 3
    assert [array.shape for array in arrays] == [array.shape for array in expected]
    assert np.abs(expected[3]).max() > 0.5
    check_equal(arrays, expected, 1e-5)


def test_later_calls_do_not_overwrite_earlier_results(
    pair: tuple[Decoder, OpenVINODecoder],
) -> None:
    decoder, converted = pair
    features = vectors(decoder.config.feature_shape, 8)
    rows = np.arange(7)
    state = converted.begin(features[:7])
    logits, next_state = converted.advance(IDS[:, :2], rows, rows, state)
    results = (*state.context, state.hidden, logits, next_state.hidden, next_state.cell)
    copies = [array.copy() for array in results]
    run_steps(converted, features[7:], IDS[:1])
    converted.advance(IDS, rows, rows, next_state)
    for array, copy in zip(results, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("width", [1, 3])
def test_a_search_finds_the_same_hypotheses_as_on_keras(
    pair: tuple[Decoder, OpenVINODecoder], width: int
) -> None:
    decoder, converted = pair
    features = vectors(decoder.config.feature_shape, 7)
    expected, beams = (search(d, features, width, 6) for d in (decoder, converted))
    assert len({beam[0].ids for beam in expected}) > 1
    for beam, expected_beam in zip(beams, expected, strict=True):
        assert [(h.ids, h.finished) for h in beam] == [(h.ids, h.finished) for h in expected_beam]
        np.testing.assert_allclose(
            [h.log_probability for h in beam],
            [h.log_probability for h in expected_beam],
            atol=1e-4,
        )


def graph_files(folder: Path) -> Sequence[str]:
    return sorted(path.name for path in (folder / openvino_graphs.FOLDER).iterdir())


def test_a_decoder_is_converted_once_and_again_for_other_weights(
    pooled: Converted, tmp_path: Path
) -> None:
    first, second = pooled.decoder, make_peaked_decoder(seed=2)
    folder = pooled.copy_to(tmp_path)
    features = vectors()[:3]
    files = [
        f"decoder_7_{graph}.{suffix}"
        for graph in ("logits", "start", "step", "unconditional_start")
        for suffix in ("bin", "json", "xml")
    ]
    assert graph_files(folder) == files
    reloaded = load(folder, first, not_called)
    images = [d.begin(features).context[0] for d in (first, second, reloaded)]
    np.testing.assert_allclose(images[2], images[0], atol=1e-6)
    reconverted = load(folder, second, lambda: second)
    np.testing.assert_allclose(reconverted.begin(features).context[0], images[1], atol=1e-6)
    assert not np.allclose(images[1], images[0], atol=1e-3)
    assert graph_files(folder) == files


def test_only_the_damaged_graph_of_a_decoder_is_converted_again(
    pooled: Converted, tmp_path: Path
) -> None:
    decoder, folder = pooled.decoder, pooled.copy_to(tmp_path)
    graphs = folder / openvino_graphs.FOLDER
    start_time = (graphs / "decoder_7_start.json").stat().st_mtime_ns
    (graphs / "decoder_7_step.bin").write_bytes(b"damaged")
    converted = load(folder, decoder, lambda: decoder)
    assert (graphs / "decoder_7_start.json").stat().st_mtime_ns == start_time
    features = vectors()[:3]
    check_equal(
        run_steps(converted, features, IDS[:3]), run_steps(decoder, features, IDS[:3]), 1e-5
    )


def test_where_no_graph_can_be_written_the_decoder_runs_on_keras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(openvino_graphs, "check_disk_space", refuse)
    decoder = make_peaked_decoder()
    model = Model.from_decoders({7: (decoder, {})}, FEATURE_SPEC, "vocabulary", {}).config
    loaded = load_openvino_decoder(tmp_path, model, model.members[0], lambda: decoder)
    assert loaded is decoder


def test_a_graph_of_other_code_is_converted_again(
    pooled: Converted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, folder = pooled.decoder, pooled.copy_to(tmp_path)
    load(folder, decoder, not_called)
    monkeypatch.setattr(openvino_graphs, "code_sha256", lambda *_: "other code")
    with pytest.raises(AssertionError, match="is converted again"):
        load(folder, decoder, not_called)


def test_an_openvino_decoder_imports_no_keras(pooled: Converted) -> None:
    folder = pooled.folder / openvino_graphs.FOLDER
    code = (
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from pipeline.captioner.decoders.openvino import OpenVINODecoder\n"
        "from pipeline.captioner.generation.beam_search import search\n"
        f"folder = Path({str(folder)!r})\n"
        "graphs = ('start', 'unconditional_start', 'step', 'logits')\n"
        "decoder = OpenVINODecoder(*(folder / f'decoder_7_{graph}.xml' for graph in graphs))\n"
        "print(len(search(decoder, np.ones((2, 6), np.float32), 3, 4)))\n"
    )
    assert slow_imports(code) == ("2", ["PIL", "numpy", "openvino"])
