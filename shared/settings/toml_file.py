"""
TOML files with the line of every key, so that a mistake can be shown where it stands.

``tomllib`` reads the values and decides what is TOML, but it reports no positions. ``find_lines``
scans the same text once more for the lines of the keys. It expects valid TOML.
"""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bybit_pipeline.shared.errors import ConfigError, Mistake

_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_SYNTAX = {
    "Invalid value": "this is not a value; text needs quotes",
    "Invalid statement": "expected KEY = VALUE or [TABLE]",
    "Invalid initial character for a key part": "expected a key of letters, digits, - and _",
    "Expected '=' after": "expected = after the key",
    "Expected newline": "unexpected text after the value",
    "Expected ']": "a bracket is missing; use [TABLE] or [[TABLE]]",
    "Cannot declare": "this table is already given above",
    "Cannot overwrite a value": "this key is already given above",
    "Duplicate inline table key": "a key is given twice",
    "Cannot mutate immutable namespace": "this table is already given above, in braces",
    "Cannot redefine namespace": "this table is already given above",
    "Unclosed array": "a list has no closing bracket ]",
    "Unclosed inline table": "a table has no closing brace }",
    "Unterminated string": "text has no closing quote",
    "Illegal character '\\n'": "text has no closing quote on its line",
    "Unescaped '\\'": "a backslash in text must be doubled",
    "Invalid date": "there is no such date or time",
}
"""Our words for the messages of ``tomllib``, by their beginning."""


@dataclass(frozen=True)
class TomlFile:
    """A TOML file: its tables, and the lines of its keys."""

    path: str
    tables: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)
    """Line by key, from 1: ``market[0].depth``, ``market[0].symbols[1]``, ``connector``."""

    def place_of(self, where: str) -> str:
        """Return ``FILE:LINE`` of a key, of the closest table around it, or ``FILE``."""
        while where and where not in self.lines:
            where = re.sub(r"(\.?[^.\[]+|\[\d+\])$", "", where)
        return f"{self.path}:{self.lines[where]}" if where else self.path


def read_toml(path: str | Path) -> TomlFile:
    """
    Read a TOML file, with or without a byte-order mark.

    Raises:
        ConfigError: If the file cannot be read or is not TOML.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError("", f"{path}: {error.strerror}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _syntax_error(path, line, "the text is not in UTF-8") from error
    try:
        return TomlFile(str(path), tomllib.loads(text), find_lines(text))
    except tomllib.TOMLDecodeError as error:
        lines = text.split("\n")
        position = _POSITION.search(str(error))
        number = int(position[1]) if position and position[1] else len(lines)
        raise _syntax_error(path, number, _explain(str(error), lines[number - 1])) from error


def _syntax_error(path: str | Path, line: int, what: str) -> ConfigError:
    return ConfigError.of([Mistake("", f"not TOML: {what}", place=f"{path}:{line}")])


def _explain(message: str, line: str) -> str:
    header = re.match(r"\s*\[\s*(\w+)\s*\]", line)
    if header and message.startswith("Cannot ") and header[1] == "market":
        return "a second market needs two pairs of brackets: [[market]]"
    return next(
        (ours for theirs, ours in _SYNTAX.items() if message.startswith(theirs)), "bad syntax"
    )


# -- lines -------------------------------------------------------------------------------------


def find_lines(text: str) -> dict[str, int]:
    """
    Return the line of every key, table and list element of a valid TOML text, from 1.

    The keys are paths as in error messages: ``market[0].symbols[1]``. A table or a list of tables
    that is written in several parts has the line of its first part.
    """
    return _LineFinder(text).find()


_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*'""")
_TEXT = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_PLAIN = re.compile(r"\d{4}-\d\d-\d\d [\d:.]+[^\s,\]}#]*|[^\s,\]}#]+")
"""A number, a boolean or a date; only a date may contain a space."""


class _LineFinder:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._tables: dict[str, int] = {}
        """Number of ``[[NAME]]`` headers so far, by name."""
        self._lines: dict[str, int] = {}

    def find(self) -> dict[str, int]:
        table = ""
        while self._skip(_BLANK) < len(self._text):
            if self._text.startswith("[[", self._at):
                table = self._header("[[", "]]")
            elif self._text[self._at] == "[":
                table = self._header("[", "]")
            else:
                self._pair(table)
        return self._lines

    def _header(self, opening: str, closing: str) -> str:
        """Read ``[NAME]`` or ``[[NAME]]``; the path of the table that follows."""
        start = self._at
        self._at += len(opening)
        *parents, name = self._key()
        self._at += len(closing)
        table = ""
        for parent in parents:
            table = self._element(self._note(_join(table, parent), start), start)
        table = self._note(_join(table, name), start)
        if opening == "[[":
            self._tables[table] = self._tables.get(table, 0) + 1
        return self._element(table, start)

    def _element(self, path: str, start: int) -> str:
        """Return the path of the latest element, if the path is a list of tables."""
        count = self._tables.get(path, 0)
        return self._note(f"{path}[{count - 1}]", start) if count else path

    def _pair(self, table: str) -> None:
        """Read ``KEY = VALUE``."""
        start, path = self._at, table
        for part in self._key():
            path = self._note(_join(path, part), start)
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)

    def _key(self) -> list[str]:
        """Read a key with its dots, and the space around it."""
        parts = []
        while True:
            self._skip(_SPACE)
            part = self._take(_KEY_PART)
            parts.append(tomllib.loads(f"k = {part}")["k"] if part[0] in "\"'" else part)
            self._skip(_SPACE)
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _value(self, path: str) -> None:
        match self._text[self._at]:
            case "[":
                for index in self._members("]"):
                    self._value(self._note(f"{path}[{index}]", self._at))
            case "{":
                for _ in self._members("}"):
                    self._pair(path)
            case '"' | "'":
                self._take(_TEXT)
            case _:
                self._take(_PLAIN)

    def _members(self, closing: str) -> Iterator[int]:
        """Stop at every member of a list or an inline table; the caller reads it."""
        self._at += 1
        index = 0
        while self._text[self._skip(_BLANK)] != closing:
            yield index
            index += 1
            if self._text[self._skip(_BLANK)] == ",":
                self._at += 1
        self._at += 1

    def _note(self, path: str, start: int) -> str:
        self._lines.setdefault(path, bisect_right(self._newlines, start) + 1)
        return path

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        assert match is not None, "the text is valid TOML"
        self._at = match.end()
        return match[0]

    def _skip(self, pattern: re.Pattern[str]) -> int:
        self._take(pattern)
        return self._at


def _join(table: str, key: str) -> str:
    return f"{table}.{key}" if table else key
