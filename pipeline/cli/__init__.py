"""The command line; Ctrl-C ends a command with a line even while its modules are imported."""

import sys
from pathlib import Path

from pipeline.system_errors import exit_on_signals_while_importing

if sys.argv and Path(sys.argv[0]).stem == "caption":
    exit_on_signals_while_importing("interrupted")
