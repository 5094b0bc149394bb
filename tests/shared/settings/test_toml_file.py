"""TOML files: the line of every key, and the messages about bad syntax."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bybit_pipeline.shared.errors import ConfigError
from bybit_pipeline.shared.settings.toml_file import find_lines, read_toml

ROOT = Path(__file__).resolve().parents[3]

EXAMPLE = '''\
# a comment with [[market]] and a = 1
source = "live"   # another one

[[market]]
symbols = [
    "A",  # ] is no end
    'B',
]
"depth" = 50
nested = { a = 1, b = [ { c = 2 } ] }

[[market]]
symbols = ["C", """
D"""]

[a.b]
c.d = 1979-05-27 07:32:00
e = 1
[a.f]
[[a.b.list]]
x = \'\'\'
[market]
\'\'\'
[[a.b.list]]
[a.b.list.inner]
y = 1
'''
LINES = {
    "source": 2,
    "market": 4,
    "market[0]": 4,
    "market[0].symbols": 5,
    "market[0].symbols[0]": 6,
    "market[0].symbols[1]": 7,
    "market[0].depth": 9,
    "market[0].nested": 10,
    "market[0].nested.a": 10,
    "market[0].nested.b": 10,
    "market[0].nested.b[0]": 10,
    "market[0].nested.b[0].c": 10,
    "market[1]": 12,
    "market[1].symbols": 13,
    "market[1].symbols[0]": 13,
    "market[1].symbols[1]": 13,
    "a": 16,
    "a.b": 16,
    "a.b.c": 17,
    "a.b.c.d": 17,
    "a.b.e": 18,
    "a.f": 19,
    "a.b.list": 20,
    "a.b.list[0]": 20,
    "a.b.list[0].x": 21,
    "a.b.list[1]": 24,
    "a.b.list[1].inner": 25,
    "a.b.list[1].inner.y": 26,
}


def paths_in(value: Any, path: str = "") -> Iterator[str]:
    """The path of every key, table and list element of a parsed document."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (below := f"{path}.{key}" if path else key, *paths_in(inner, below))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from (below := f"{path}[{index}]", *paths_in(inner, below))


def test_every_key_has_its_line() -> None:
    assert set(paths_in(tomllib.loads(EXAMPLE))) == set(find_lines(EXAMPLE))
    assert LINES == find_lines(EXAMPLE)
    assert LINES == find_lines(EXAMPLE.replace("\n", "\r\n"))


def test_the_example_file_has_a_line_for_every_key() -> None:
    text = (ROOT / "pipeline.toml").read_text("utf-8")
    assert set(paths_in(tomllib.loads(text))) == set(find_lines(text))


KEYS = st.sampled_from(["a", "b", "'c.d'", '"e"', "f-1", "a . b", '"\\u0041"'])
BLANKS = st.sampled_from(["", " ", "\n", "# ]}'\"\n", " \t"])
SCALARS = st.sampled_from(
    [
        "1",
        "-1.5e3",
        "true",
        "inf",
        "1979-05-27 07:32:00.5",
        "07:32:00",
        '"#]}"',
        r'"a\"b\\"',
        "'[x]'",
        '"""a"\n"""""',
        "'''a\n''''",
        '""',
        "''",
        '""""""',
    ]
)


def lists(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Lists over several lines, with comments."""
    element = st.tuples(BLANKS, values, BLANKS).map("".join)
    return st.tuples(st.lists(element, max_size=3).map(",".join), BLANKS).map(
        lambda parts: f"[{parts[0]}\n{parts[1]}]"
    )


def inline_tables(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Inline tables."""
    pairs = st.dictionaries(st.sampled_from("xyz"), values, max_size=3)
    return pairs.map(lambda d: "{ " + ", ".join(f"{k} = {v}" for k, v in d.items()) + " }")


VALUES = st.recursive(SCALARS, lambda inner: lists(inner) | inline_tables(inner), max_leaves=6)
STATEMENTS = (
    st.tuples(KEYS, VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}")
    | KEYS.map(lambda key: f"[{key}]")
    | KEYS.map(lambda key: f"[[ {key} ]]  # comment")
    | BLANKS
)


@given(st.lists(STATEMENTS, max_size=8).map("\n".join))
def test_the_lines_cover_exactly_the_keys_of_any_document(text: str) -> None:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = find_lines(text)
    assert set(paths_in(tables)) == set(lines)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ("market[0].symbols[1]", "7"),
        ("market[0].symbols[5]", "5"),
        ("market[1].depth", "12"),
        ("a.b.unknown.key", "16"),
        ("replay.capture", None),
        ("", None),
    ],
)
def test_a_missing_key_is_placed_at_the_table_around_it(
    tmp_path: Path, where: str, place: str | None
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(EXAMPLE)
    assert (f"{path}:{place}" if place else str(path)) == read_toml(path).place_of(where)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_accepted(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(mark + b'source = "sim"\r\n[workers]\r\ntrades = 2\r\n')
    file = read_toml(path)
    assert {"source": "sim", "workers": {"trades": 2}} == file.tables
    assert 3 == file.lines["workers.trades"]


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("a = ", 1, "this is not a value; text needs quotes"),
        ("source = live", 1, "text needs quotes"),
        ("[[market]]\nsymbols = [1", 2, "no closing bracket ]"),
        ("x = {a = 1", 1, "no closing brace }"),
        ('a = 1\nb = "x', 2, "no closing quote"),
        ('b = "x\ny"', 1, "no closing quote on its line"),
        ('a = "c:\\x"', 1, "a backslash in text must be doubled"),
        ("a", 1, "expected = after the key"),
        ("= 1", 1, "expected KEY = VALUE or [TABLE]"),
        ("a = 1 b = 2", 1, "unexpected text after the value"),
        ("[market", 1, "a bracket is missing"),
        ("a = 1\na = 2", 2, "this key is already given above"),
        ("[x]\n[y]\n[x]", 3, "this table is already given above"),
        ("[market]\n[market]", 2, "two pairs of brackets: [[market]]"),
        ("[[market]]\n[market]", 2, "two pairs of brackets: [[market]]"),
        ("\x00", 1, "not TOML: "),
    ],
)
def test_bad_syntax_is_one_line_with_its_place(
    tmp_path: Path, text: str, line: int, expected: str
) -> None:
    path = tmp_path / "pipeline.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as rejection:
        read_toml(path)
    message = str(rejection.value)
    assert message.startswith(f"{path}:{line}: not TOML: ")
    assert expected in message
    assert "\n" not in message
    assert "(at " not in message


def test_text_in_another_encoding_is_rejected_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b'a = 1\nb = "\xff"\n')
    with pytest.raises(ConfigError) as rejection:
        read_toml(path)
    assert f"{path}:2: not TOML: the text is not in UTF-8" == str(rejection.value)


def test_a_file_that_does_not_exist_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as rejection:
        read_toml(tmp_path / "nothing.toml")
    assert f"{tmp_path}/nothing.toml: No such file or directory" == str(rejection.value)
