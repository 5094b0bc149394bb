"""
From the tables of a file to a record: types, ranges and unknown keys. Pure.

Works for every ``msgspec.Struct``. Unlike ``msgspec.convert`` it finds all mistakes, not only the
first, and describes them in the words of this project.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

import msgspec.inspect as types
from msgspec import Struct

from bybit_pipeline.shared.errors import Mistake

AnyStruct = TypeVar("AnyStruct", bound=Struct)


class Field(NamedTuple):
    """One key of a record."""

    name: str
    kind: types.Type
    default: Any
    meaning: str
    """Its description; empty for a table."""


def fields_of(record: type[Struct]) -> Iterator[Field]:
    """Yield the keys of a record in their order."""
    kind = types.type_info(record)
    assert isinstance(kind, types.StructType)
    hints = get_type_hints(record)
    for field in kind.fields:
        meaning = ""
        if isinstance(field.type, types.Metadata):
            meaning = (field.type.extra_json_schema or {}).get("description", "")
        yield Field(field.name, _bare(field.type, hints[field.name]), field.default, meaning)


def _bare(kind: types.Type, hint: Any) -> types.Type:
    """Return a type without its description, and with its choices in the order of the hint."""
    match kind:
        case types.Metadata():
            return _bare(kind.type, hint)
        case types.LiteralType():
            return types.LiteralType(get_args(hint))
        case types.VarTupleType():
            item = _bare(kind.item_type, get_args(hint)[0])
            return types.VarTupleType(item, kind.min_length, kind.max_length)
    return kind


_BAD: Any = object()
"""Stands for a value that was reported."""


class Conversion:
    """
    One conversion and its mistakes.

    Attributes:
        mistakes: All that were found, in the order of the keys.
    """

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []

    def is_good(self, *keys: str) -> bool:
        """Return True if none of these keys, nor a part of one, has a mistake."""
        return not any(_overlap(key, mistake.where) for key in keys for mistake in self.mistakes)

    def record(self, table: Mapping[str, Any], kind: type[AnyStruct]) -> AnyStruct:
        """Return the record of a table, with the default of every key that has a mistake."""
        record: AnyStruct = self._record(table, kind, "")
        return record

    def _report(self, where: str, what: str, allowed: str) -> Any:
        self.mistakes.append(Mistake(where, what, allowed))
        return _BAD

    def _record(self, table: Mapping[str, Any], kind: type[Struct], where: str) -> Any:
        fields = {field.name: field for field in fields_of(kind)}
        values = {}
        for key, value in table.items():
            path = f"{where}.{key}" if where else key
            if key in fields:
                values[key] = self._value(value, fields[key], path)
            else:
                close = difflib.get_close_matches(key, fields, n=1)
                what = f"unknown key; did you mean {close[0]}?" if close else "unknown key"
                self._report(path, what, "" if close else listed(fields))
        return kind(**{key: value for key, value in values.items() if value is not _BAD})

    def _value(self, value: Any, field: Field, where: str) -> Any:
        kind = field.kind
        if isinstance(kind, types.StructType):
            return self._table(value, kind.cls, where)
        if not isinstance(kind, types.VarTupleType):
            return self._scalar(value, kind, where)
        if isinstance(kind.item_type, types.StructType):
            return self._tables(value, kind.item_type.cls, where)
        return self._list(value, kind, where, example=shown(field.default))

    def _table(self, value: Any, kind: type[Struct], where: str) -> Any:
        if isinstance(value, dict):
            return self._record(value, kind, where)
        return self._report(where, f"{shown(value)} is not a table", f"[{where}] on its own line")

    def _tables(self, value: Any, kind: type[Struct], where: str) -> Any:
        header = f"[[{where}]]"
        if isinstance(value, dict):
            self._record(value, kind, where)
            return self._report(
                where, f"[{where}] is a single table", f"two pairs of brackets: {header}"
            )
        if not isinstance(value, list | tuple):
            return self._report(
                where, f"{shown(value)} is not a table", f"{header} on its own line"
            )
        if not value:
            return self._report(where, "is empty", f"at least one {header} table")
        found = [self._table(each, kind, f"{where}[{index}]") for index, each in enumerate(value)]
        return tuple(kind() if each is _BAD else each for each in found)

    def _list(self, value: Any, kind: types.VarTupleType, where: str, *, example: str) -> Any:
        if not isinstance(value, list | tuple):
            return self._report(where, f"{shown(value)} is not a list", f"a list such as {example}")
        if len(value) < (kind.min_length or 0):
            return self._report(where, "is empty", f"at least one, such as {example}")
        item = kind.item_type
        found = [self._scalar(each, item, f"{where}[{index}]") for index, each in enumerate(value)]
        return _BAD if any(each is _BAD for each in found) else tuple(found)

    def _scalar(self, value: Any, kind: types.Type, where: str) -> Any:
        what = fault(value, kind)
        if what:
            return self._report(where, f"{shown(value)} {what}", allowed_text(kind))
        return value


def _overlap(key: str, other: str) -> bool:
    """Return True if one key is the other one or a part of it."""
    short, long = sorted((key, other), key=len)
    return long == short or long.startswith((f"{short}.", f"{short}["))


# -- values -------------------------------------------------------------------------------------


def fault(value: Any, kind: types.Type) -> str:
    """Return why a value is not of a type, such as ``is out of range``; empty if it is."""
    match kind:
        case types.BoolType():
            return "" if isinstance(value, bool) else "is not a boolean"
        case types.IntType() | types.FloatType():
            is_whole = isinstance(kind, types.IntType)
            if isinstance(value, bool) or not isinstance(value, int if is_whole else int | float):
                return "is not a whole number" if is_whole else "is not a number"
            return "" if _is_in_range(value, kind) else "is out of range"
        case types.StrType():
            return "" if isinstance(value, str) else "is not text"
        case types.LiteralType():
            return "" if value in kind.values else "is unknown"
    raise AssertionError(f"no rule for {kind}")


def _is_in_range(value: float, kind: types.IntType | types.FloatType) -> bool:
    low = float("-inf") if kind.ge is None else kind.ge
    high = float("inf") if kind.le is None else kind.le
    return low <= value <= high and (kind.gt is None or value > kind.gt)


def allowed_text(kind: types.Type) -> str:
    """Return the allowed values of a type in words; empty if there is nothing to say."""
    match kind:
        case types.BoolType():
            return "true or false"
        case types.IntType() | types.FloatType():
            return _range_text(kind)
        case types.StrType():
            return "text in quotes"
        case types.LiteralType():
            return listed(map(str, kind.values))
        case types.VarTupleType():
            return allowed_text(kind.item_type)
    return ""


def _range_text(kind: types.IntType | types.FloatType) -> str:
    if kind.gt is not None and kind.le is not None:
        return f"more than {number_text(kind.gt)}, up to {number_text(kind.le)}"
    if kind.ge is not None and kind.le is not None:
        return f"{number_text(kind.ge)} to {number_text(kind.le)}"
    return ""


# -- words -------------------------------------------------------------------------------------


def listed(words: Iterable[str], joint: str = "or") -> str:
    """Return words as a list in a sentence: ``a, b or c``."""
    *first, last = words
    return f"{', '.join(first)} {joint} {last}" if first else last


def number_text(value: float) -> str:
    """Return a number in few characters: ``86400``, ``0.05``, ``1e-9``."""
    if abs(value) < 1e7 and value == int(value):
        return str(int(value))
    return re.sub(r"e\+?(-?)0*", r"e\1", f"{value:g}")


def shown(value: Any) -> str:
    """Return a value of a TOML file as people write it; long texts are shortened."""
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case float():
            return f"{value:g}"
        case str():
            return repr(value if len(value) <= 60 else f"{value[:57]}...")
        case dict():
            return "a table"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(shown, value))}]"
    return str(value)
