"""
The terminal itself: a screen of its own that is drawn on, and single keys from it.

Whatever ends the program, the terminal is as it was before: its own picture, its echo, its cursor.
"""

import os
import re
import select
import sys
import termios
import tty
from collections.abc import Sequence
from contextlib import ExitStack

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1b|.", re.DOTALL)
READ_BYTES = 256


class Screen:
    """A terminal that is drawn on; a context manager. Used by one thread, but for ``interrupt``."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout)
        self._cleanup = ExitStack()
        self._reader, self._writer = os.pipe()
        self._keyboard: int | None = None

    def __enter__(self) -> "Screen":
        with ExitStack() as stack:
            stack.callback(self._close_pipe)
            self._take_keyboard(stack)
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
        """Width and height as of now, in cells."""
        width, height = self._console.size
        return width, height

    def draw(self, lines: Sequence[Text]) -> None:
        """Replace the picture; lines must fit ``size``."""
        for line in lines:
            line.no_wrap, line.overflow, line.end = True, "crop", "\n"
        self._live.update(Group(*lines), refresh=True)

    def wait(self, seconds: float) -> list[str]:
        """The keys that are pressed within the time; returns with the first."""
        sources = [self._reader, *([] if self._keyboard is None else [self._keyboard])]
        ready, _, _ = select.select(sources, [], [], max(0.0, seconds))
        if self._reader in ready:
            os.read(self._reader, READ_BYTES)
        return self._read_keys() if self._keyboard in ready else []

    def interrupt(self) -> None:
        """End a ``wait``; from any thread, before the screen is left."""
        os.write(self._writer, b"\0")

    def _take_keyboard(self, stack: ExitStack) -> None:
        """
        Have keys at once and unseen. Ctrl-C still interrupts.

        Ctrl-Z and Ctrl-S are off: they would halt the pipeline, or whoever draws it.
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
        assert self._keyboard is not None, "only a keyboard is read"
        try:
            data = os.read(self._keyboard, READ_BYTES)
        except OSError:
            data = b""
        if not data:  # the terminal is gone; without this we would read it for ever
            self._keyboard = None
        return KEY.findall(data.decode(errors="replace"))

    def _close_pipe(self) -> None:
        os.close(self._reader)
        os.close(self._writer)
