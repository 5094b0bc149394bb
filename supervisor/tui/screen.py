"""
The terminal: a full screen to draw on, and single keys from the keyboard.

However the program ends, the terminal is restored: its contents, its echo, its cursor. A terminal
that stalls costs frames; nothing here waits for it.
"""

import os
import re
import select
import sys
import termios
import tty
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TextIO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from bybit_pipeline.shared.runtime.background_stream import BackgroundStream
from bybit_pipeline.shared.runtime.wakeup import Wakeup

KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1b|.", re.DOTALL)
READ_BYTES = 256


class Screen:
    """A full-screen terminal; a context manager. Only ``interrupt`` is for other threads."""

    def __init__(self) -> None:
        self._output = BackgroundStream(sys.stdout)
        self._console = Console(file=cast(TextIO, self._output))
        self._cleanup = ExitStack()
        self._wakeup = Wakeup()
        self._keyboard: int | None = None

    def __enter__(self) -> "Screen":
        with ExitStack() as stack:
            stack.callback(self._wakeup.close)
            self._take_keyboard(stack)
            stack.callback(self._close_output)
            self._live = stack.enter_context(
                Live(
                    console=self._console,
                    screen=True,
                    auto_refresh=False,
                    redirect_stdout=False,
                    redirect_stderr=False,
                    vertical_overflow="crop",
                )
            )
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    @property
    def size(self) -> tuple[int, int]:
        """Current width and height, in cells."""
        width, height = self._console.size
        return width, height

    @property
    def sources(self) -> list[int]:
        """File descriptors that end a ``wait`` when they are readable."""
        return [self._wakeup.fileno(), *([] if self._keyboard is None else [self._keyboard])]

    def draw(self, lines: Sequence[Text]) -> None:
        """
        Replace the contents, unless the previous ones are not written yet.

        Args:
            lines: The new contents; they must fit ``size``.

        Raises:
            OSError: If the terminal is closed.
        """
        if self._output.error is not None:
            raise self._output.error
        if self._output.is_behind:
            return
        for line in lines:
            line.no_wrap, line.overflow, line.end = True, "crop", "\n"
        self._live.update(Group(*lines), refresh=True)

    def wait(self, seconds: float) -> list[str]:
        """Wait for keys and return them; an empty list after the timeout."""
        ready, _, _ = select.select(self.sources, [], [], max(0.0, seconds))
        self._wakeup.clear()
        return self._read_keys() if self._keyboard in ready else []

    def interrupt(self) -> None:
        """End a ``wait``, from any thread."""
        self._wakeup.set()

    def _close_output(self) -> None:
        """Write what waits. A stalled terminal loses frames to make room for restoring it."""
        if not self._output.close():
            termios.tcflush(self._output.fileno(), termios.TCOFLUSH)
            self._output.close()

    def _take_keyboard(self, stack: ExitStack) -> None:
        """
        Deliver keys at once and without echo. Ctrl-C still interrupts.

        Ctrl-Z and Ctrl-S are disabled, since they would stop the pipeline or the drawing thread.
        """
        if not sys.stdin.isatty():
            return
        keyboard = sys.stdin.fileno()
        before = termios.tcgetattr(keyboard)
        stack.callback(termios.tcsetattr, keyboard, termios.TCSANOW, before)
        tty.setcbreak(keyboard, termios.TCSANOW)
        mode = termios.tcgetattr(keyboard)
        mode[0] &= ~termios.IXON
        mode[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(keyboard, termios.TCSANOW, mode)
        self._keyboard = keyboard

    def _read_keys(self) -> list[str]:
        assert self._keyboard is not None, "no keyboard to read"
        try:
            data = os.read(self._keyboard, READ_BYTES)
        except OSError:
            data = b""
        if not data:  # the terminal is closed; it would stay readable
            self._keyboard = None
        return KEY.findall(data.decode(errors="replace"))
