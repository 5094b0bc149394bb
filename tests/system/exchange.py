"""A simulated exchange in a process of its own, started as a user would."""

import subprocess

from tests.system.pipeline import COMMAND


class Exchange:
    """``bybit-pipeline simulate`` with the given options."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "simulate", *arguments], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        word, _, self.url = self.process.stdout.readline().strip().partition(" ")
        assert word == "READY"

    def kill(self) -> None:
        """Kill it without warning."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
