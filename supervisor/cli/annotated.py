"""
A configuration as a TOML file with comments. Pure.

Every key has its meaning and range beside it, taken from the records in ``settings.config``.
"""

import json
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import msgspec.inspect as types

from bybit_pipeline.shared.settings.config import Config, Section
from bybit_pipeline.shared.settings.records import allowed_text, fields_of

WIDTH = 100
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"
COMMENT_AT = 31
"""Column of the comments; longer keys have theirs above."""

HEADER = """\
# Configuration of bybit-pipeline with every key. A file needs only the keys that differ from
# their defaults. Options of the command line override the file. Relative paths are relative to
# the current directory. `bybit-pipeline check --config FILE` reports every mistake in FILE.
"""


class Key(NamedTuple):
    """A key of a table."""

    name: str
    type_text: str
    default: Any
    allowed: str
    """Range or choices; empty if there is no limit."""
    meaning: str


def keys_of(section: type[Section]) -> Iterator[Key]:
    """Yield the keys of a table, without those that are tables themselves."""
    for field in fields_of(section):
        if field.meaning:
            allowed = _limit(field.kind)
            yield Key(field.name, _type_text(field.kind), field.default, allowed, field.meaning)


def _limit(kind: types.Type) -> str:
    if isinstance(kind, types.VarTupleType):
        return _limit(kind.item_type)
    return "" if isinstance(kind, types.BoolType | types.StrType) else allowed_text(kind)


def _type_text(kind: types.Type) -> str:
    match kind:
        case types.BoolType():
            return "boolean"
        case types.IntType():
            return "integer"
        case types.FloatType():
            return "number"
        case types.VarTupleType():
            items = _type_text(kind.item_type)
            return f"list of {items}s"
    return "string"


def toml_value(value: Any) -> str:
    """Return a value as TOML."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case tuple():
            return f"[{', '.join(map(toml_value, value))}]"
    return str(value)


def annotated(config: Config) -> Iterator[str]:
    """Yield the lines of a file that gives this configuration."""
    yield from HEADER.splitlines()
    yield ""
    yield from _key_lines(config)
    for index, market in enumerate(config.market):
        yield from _table_lines("[[market]]", market, has_comments=index == 0)
    for field in msgspec.structs.fields(Config):
        table = getattr(config, field.name)
        if isinstance(table, Section):
            yield from _table_lines(f"[{field.name}]", table)


def _table_lines(header: str, table: Section, *, has_comments: bool = True) -> Iterator[str]:
    yield ""
    if has_comments:
        yield from _with_comment(header, (type(table).__doc__ or "").strip().removesuffix("."))
        yield from _key_lines(table)
    else:
        yield header
        for key in keys_of(type(table)):
            yield f"{key.name} = {toml_value(getattr(table, key.name))}"


def _key_lines(table: Section) -> Iterator[str]:
    for key in keys_of(type(table)):
        value = getattr(table, key.name)
        limits = [key.allowed] if key.allowed else []
        if value != key.default:
            limits.append(f"default {toml_value(key.default)}")
        comment = f"{key.meaning} ({_unbroken('; '.join(limits))})" if limits else key.meaning
        yield from _with_comment(f"{key.name} = {toml_value(value)}", comment)


def _unbroken(text: str) -> str:
    """Keep a short text on one line."""
    return text if len(text) > COMMENT_AT else text.replace(" ", NO_BREAK_SPACE)


def _with_comment(text: str, comment: str) -> Iterator[str]:
    """Yield a line with its comment beside it, or above it if the line is long."""
    is_long = len(text) >= COMMENT_AT
    width = WIDTH - 2 - (0 if is_long else COMMENT_AT)
    lines = textwrap.wrap(comment, width, break_on_hyphens=False)
    comments = [f"# {line}".replace(NO_BREAK_SPACE, " ") for line in lines]
    if is_long:
        yield from (*comments, text)
    else:
        yield f"{text:<{COMMENT_AT}}{comments[0]}"
        yield from (f"{'':<{COMMENT_AT}}{line}" for line in comments[1:])
