"""The stages of the pipeline; Ctrl-C ends one with a line even while its modules are imported."""

import sys

from pipeline.system.failures import guard_imports

if sys.argv[:1] == ["-m"]:  # `python -m` has not yet found the module to run
    guard_imports("interrupted; run `dvc repro` to resume")
