"""
Keeps ``rich`` out of a process; imported first by every process without a terminal view.

structlog loads rich, if installed, for coloured tracebacks. That costs a third of a worker's start
and 4 MB of memory, and its tracebacks show the values of local variables.
"""

import sys

sys.modules["rich"] = None  # type: ignore[assignment]  # the import system reports it as not installed
