"""The tier of every test: quick, unless this table says slow or soak.

| tier | what | run by |
|---|---|---|
| quick | starts no process and trains nothing | `make quick`, `make test` |
| slow | starts processes, trains, or takes seconds per test | `make test` |
| soak | repeats a guarantee hundreds of times, or computes for minutes | `make soak` |

tests/conftest.py turns the tiers into pytest's markers `slow` and `soak`, and fails a quick test
that starts a process or trains (tests/support/quick_guard.py). Of a parametrised test, cases that
repeat what others show can be marked `soak` beside their parameters instead.
"""

from pathlib import Path

TESTS = Path(__file__).parent

# A file below tests/, or `file::part of a test's name and case`; the longest matching entry
# decides. In the order in which files start: the longest first, so that no worker of pytest-xdist
# is left with a long file at the end. The first file makes the fixture `project`, which others
# should not wait for.
TIERS = {
    "runs/test_pipeline.py": "slow",
    "runs/test_readme.py": "slow",
    "stages/test_train.py": "slow",
    "captioner/decoders/test_backends.py": "slow",
    "runs/test_random_kills.py": "soak",
    "runs/test_fuzz.py": "slow",
    "runs/test_fuzz.py::thousands": "soak",
    "runs/test_fuzz.py::hundreds": "soak",
    "features/encoders/test_engines.py": "slow",
    "captioner/training/test_fit.py": "slow",
    "captioner/training/test_loss.py::training_step": "slow",
    "runs/test_crash.py": "slow",
    "runs/test_clones.py": "slow",
    "features/encoders/test_networks.py": "slow",
    "features/encoders/test_networks.py::InceptionV3": "soak",
    "features/encoders/test_networks.py::Xception": "soak",
    "captioner/test_captioner.py": "slow",
    "features/executors/test_ray.py": "slow",
    "runs/test_kill_points.py": "slow",
    "benchmarks/test_notebook.py": "slow",
    "cli/test_status.py": "slow",
    "runs/test_two_writers.py": "slow",
    "features/encoders/test_official_weights.py": "slow",
    "features/encoders/test_official_weights.py::official_xception": "soak",
    "cli/test_image_artifacts.py": "slow",
    "captioner/decoders/test_openvino.py": "slow",
    "test_backend.py": "slow",
    "features/encoders/test_pretrained.py": "slow",
    "captioner/training/test_self_critical.py": "slow",
    "captioner/training/test_tracing.py": "slow",
    "features/test_extractor.py::real_encoder": "slow",
    "features/test_extractor.py::processes": "slow",
    "cli/test_score.py::revision": "slow",
    "cli/test_score.py::neither_command_imports": "slow",
    "cli/test_score.py::its_column": "slow",
    "features/test_damaged_shards.py": "slow",
    "runs/test_disk_faults.py": "slow",
    "stages/test_evaluate.py": "slow",
    "reporting/test_report_browser.py": "slow",
    "reporting/test_comparison_browser.py": "slow",
    "reporting/test_plots_page.py::drawn": "slow",
    "cli/test_image.py": "slow",
    "captioner/training/test_cross_entropy.py": "slow",
    "storage/test_openvino_graphs.py": "slow",
    "runs/test_interruption.py": "slow",
    "features/encoders/test_engine_threads.py": "slow",
    "cli/test_inspect.py::what_lies_beside": "slow",
    "features/encoders/test_graph_digest.py": "slow",
    "metrics/test_meteor.py": "slow",
    "features/executors/test_local.py::processes": "slow",
    "features/decoding/test_photos.py::huge": "slow",
    "datasets/test_file_shapes.py::conversion": "slow",
    "features/test_feature_spec.py::imports_no_keras": "slow",
    "captioner/test_model_config.py::imports_no_keras": "slow",
    "cli/test_main.py::neither_numpy_nor_keras": "slow",
    "test_errors.py::test_a_process": "slow",
    "system/test_streams.py": "slow",
    "system/test_failures.py::a_stage_that_is_asked": "slow",
    "system/test_failures.py::during_imports": "slow",
}

# Tests of several modules at once; every other tests/ROOM/test_NAME.py tests pipeline/ROOM/NAME.py.
OF_NO_SINGLE_MODULE = {
    "captioner/decoders/test_backends.py",
    "cli/test_image_artifacts.py",
    "features/encoders/test_engine_threads.py",
    "features/encoders/test_official_weights.py",
    "features/test_damaged_shards.py",
    "features/test_damaged_store.py",
    "features/test_extraction_passes.py",
    "features/decoding/test_strange_photos.py",
    "reporting/test_comparison_browser.py",
    "reporting/test_plots_page.py",
    "reporting/test_report_browser.py",
    "runs/test_clones.py",
    "runs/test_crash.py",
    "runs/test_disk_faults.py",
    "runs/test_fuzz.py",
    "runs/test_interruption.py",
    "runs/test_kill_points.py",
    "runs/test_pipeline.py",
    "runs/test_random_kills.py",
    "runs/test_readme.py",
    "runs/test_two_writers.py",
    "test_dvc_yaml.py",
    "test_dvcignore.py",
    "test_params_page.py",
    "test_tiers.py",
}


def tier(test: str) -> str:
    """Return the tier of a test, given as `ROOM/test_FILE.py::test_name[case]`."""
    file, _, name = test.partition("::")
    entries = [entry for entry in TIERS if _matches(entry, file, name)]
    return TIERS[max(entries, key=len)] if entries else "quick"


def position(test: str) -> int:
    """Return the position of a test's file in the order in which files start."""
    files = [entry.partition("::")[0] for entry in TIERS]
    file = test.partition("::")[0]
    return files.index(file) if file in files else len(files)


def _matches(entry: str, file: str, name: str) -> bool:
    entry_file, _, part = entry.partition("::")
    return entry_file == file and part in name
