"""The stages of the pipeline; Ctrl-C ends one with a line even while its modules are imported."""

import sys

from pipeline.system_errors import exit_on_signals_while_importing

if sys.argv[:1] == ["-m"]:  # `python -m` has not yet found the module to run
    exit_on_signals_while_importing("interrupted; run `dvc repro` to resume")
