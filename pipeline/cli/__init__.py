"""The command line; Ctrl-C ends a command with a line even while its modules are imported."""

import sys
from pathlib import Path

from pipeline.system.failures import guard_imports

if sys.argv and Path(sys.argv[0]).stem == "caption":
    guard_imports("interrupted")
