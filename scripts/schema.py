"""
Generator of ``docs/schema`` and of the tables in ``docs/reference/wire-format.md``.

Names, types, units, ranges and descriptions come from the records in ``shared/wire``. The types
cannot express which fields are null together; this file adds that as JSON Schema conditions
(2020-12).
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from bybit_pipeline.shared.wire import metrics
from bybit_pipeline.shared.wire.messages import (
    BookMessage,
    HeartbeatMessage,
    LinkMessage,
    Trade,
    TradesMessage,
)

ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = ROOT / "docs" / "schema"
WIRE_FORMAT = ROOT / "docs" / "reference" / "wire-format.md"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]

NULL: Schema = {"type": "null"}
NOT_NULL: Schema = {"not": NULL}
EMPTY: Schema = {"maxItems": 0}


def schemas() -> dict[str, Schema]:
    """Return every schema by the name of its file."""
    made = {}
    for kind, type_ in metrics.KINDS.items():
        (root,), definitions = msgspec.json.schema_components([type_])
        _require_defaults(definitions)
        _add_rules(definitions)
        made[f"{kind}.json"] = {
            "$schema": DIALECT,
            "title": f"{kind}.*",
            **root,
            "$defs": definitions,
        }
    made["market-bus.json"] = _market_bus()
    return made


# -- conditions --------------------------------------------------------------------------------


def _require_defaults(definitions: dict[str, Schema]) -> None:
    """Require the fields with a default: every message has them, only ``UNSET`` is omitted."""
    for definition in definitions.values():
        definition["description"] = _plain(definition["description"])
        for name, field in definition.get("properties", {}).items():
            if "default" in field:
                del field["default"]
                definition["required"].append(name)


def _add_rules(definitions: dict[str, Schema]) -> None:
    for name, rules in _RULES.items():
        if name in definitions:
            definitions[name]["allOf"] = rules
    if "Density" in definitions:
        (_,), walls = msgspec.json.schema_components([metrics.Wall])
        properties = definitions["Density"]["properties"]
        for field, schema in walls["Wall"]["properties"].items():
            properties[field] = schema


def _when(condition: Schema, then: Schema, otherwise: Schema | None = None) -> Schema:
    """If the fields in ``condition`` match it, other fields must match ``then``."""
    rule: Schema = {
        "if": {"properties": condition, "required": list(condition)},
        "then": {"properties": then},
    }
    if otherwise is not None:
        rule["else"] = {"properties": otherwise}
    return rule


def _all(names: Any, schema: Schema) -> Schema:
    return dict.fromkeys(names, schema)


_LIVE: Schema = {"state": {"const": "live"}}
_INPUT = ("match_ts_ms", "exchange_ts_ms", "recv_ts_ns")
_NO_BOOK = {
    field.name: EMPTY if field.default == () else NULL
    for field in msgspec.structs.fields(metrics.Orderbook)
    if field.name not in (*metrics.MarketMetric.__struct_fields__, "state", "reason")
}
WINDOW_MEASURES = [
    field.name for field in msgspec.structs.fields(metrics.Window) if field.default is None
]
_NEED_BOTH_SIDES = ("mid_price", "spread", "spread_bps", "weighted_mid", "depth", "impact")
_AFTER_GAP = (
    "closed_ts_ns",
    "end_ms",
    "update_id_after",
    "sequence_after",
    "duration_s",
)
_OF_TRADES = ("buy_share", "vwap", "high", "low")

_RULES: dict[str, list[Schema]] = {
    "Orderbook": [
        _when(
            _LIVE,
            {
                "reason": NULL,
                **_all(("exchange_ts_ms", "recv_ts_ns", "update_id", "imbalance"), NOT_NULL),
            },
            {
                "reason": NOT_NULL,
                **_all(_INPUT, NULL),
                **_NO_BOOK,
            },
        ),
        _when(
            {"best_bid": NULL}, {"best_bid_size": NULL, "bids": EMPTY}, {"best_bid_size": NOT_NULL}
        ),
        _when(
            {"best_ask": NULL}, {"best_ask_size": NULL, "asks": EMPTY}, {"best_ask_size": NOT_NULL}
        ),
        _when(
            {"best_bid": NOT_NULL, "best_ask": NOT_NULL},
            _all(_NEED_BOTH_SIDES, NOT_NULL),
            _all(_NEED_BOTH_SIDES, NULL),
        ),
    ],
    "Trades": [
        _when(_LIVE, {"reason": NULL, "as_of_ms": NOT_NULL}, {"reason": NOT_NULL}),
        _when(
            {"last_price": NULL},
            _all(("last_size", "last_side", "last_trade_id", "match_ts_ms"), NULL),
            _all(("last_size", "last_side", "last_trade_id", "match_ts_ms"), NOT_NULL),
        ),
        _when(
            {"trades_total": NULL},  # a last will
            {
                "state": {"const": "stale"},
                **_all(("cvd", "tps", "as_of_ms", "last_price", *_INPUT), NULL),
            },
            _all(("cvd",), NOT_NULL),
        ),
    ],
    "Window": [
        _when(
            {"trades": NULL},
            {**_all(WINDOW_MEASURES, NULL), "coverage_s": {"const": 0}},
            _all(
                ("tpm", "tps", "volume", "buy_volume", "sell_volume", "vol_delta", "turnover"),
                NOT_NULL,
            ),
        ),
        _when(
            {"trades": {"type": "integer", "minimum": 1}},
            _all(_OF_TRADES, NOT_NULL),
            _all(_OF_TRADES, NULL),
        ),
        _when(
            {"sell_volume": {"type": "number", "exclusiveMinimum": 0}},
            {"buy_sell_ratio": NOT_NULL},
            {"buy_sell_ratio": NULL},
        ),
    ],
    "Density": [
        _when(
            _LIVE, _all(("exchange_ts_ms", "recv_ts_ns"), NOT_NULL), {"event": {"const": "removed"}}
        )
    ],
    "BookGapEvent": [
        _when({"event": {"const": "opened"}}, _all(_AFTER_GAP, NULL)),
        _when(
            {"closed_ts_ns": NOT_NULL},
            _all(("end_ms", "update_id_after", "duration_s"), NOT_NULL),
        ),
    ],
    "TradesGapEvent": [
        _when(
            {"event": {"const": "opened"}},
            _all(("end_ms", "duration_s", "sequence_after", "trade_id_after"), NULL),
            _all(("end_ms", "duration_s"), NOT_NULL),
        ),
        _when({"event": {"const": "completed"}}, {"trade_id_after": NOT_NULL}),
    ],
}


# -- the market bus ----------------------------------------------------------------------------


def _market_bus() -> Schema:
    """Return the schema of the market bus arrays; array items have the field names as titles."""
    records: dict[str, Any] = {
        "trade": TradesMessage,
        "book": BookMessage,
        "link": LinkMessage,
        "heartbeat": HeartbeatMessage,
    }
    _, definitions = msgspec.json.schema_components(list(records.values()))
    for record in (*records.values(), Trade):
        definition = definitions[record.__name__]
        for name, item in zip(record.__struct_fields__, definition["prefixItems"], strict=True):
            if "$ref" not in item:
                item["title"] = name
        definition["description"] = _first_paragraph(record.__doc__)
    return {
        "$schema": DIALECT,
        "title": "Market bus: the msgpack array after the topic and its zero byte",
        "anyOf": [{"$ref": f"#/$defs/{record.__name__}"} for record in records.values()],
        "$defs": definitions,
        "topics": {
            f"{kind}.*": {"$ref": f"#/$defs/{record.__name__}"} for kind, record in records.items()
        },
    }


def _first_paragraph(text: str | None) -> str:
    return _plain((text or "").split("\n\n")[0])


def _plain(docstring: str) -> str:
    """Return a docstring as one line of Markdown."""
    return " ".join(docstring.split()).replace("``", "`")


# -- tables ------------------------------------------------------------------------------------


def table(name: str) -> str:
    """Return the fields that a record adds to its base as a Markdown table."""
    record: Any = getattr(metrics, name)
    base: Any = record.__base__
    inherited = set(getattr(base, "__struct_fields__", ()))
    if name == "Density":
        inherited |= set(metrics.Wall.__struct_fields__)
    _, definitions = msgspec.json.schema_components([record])
    properties = definitions[name]["properties"]
    rows = ["| field | type | unit | meaning |", "|---|---|---|---|"]
    for field, schema in properties.items():
        if field not in (*inherited, "kind", "role"):
            rows.append(f"| `{field}` | {_type(schema)} | {_unit(schema)} | {_meaning(schema)} |")
    return "\n".join(rows)


def _meaning(schema: Schema) -> str:
    return str(schema.get("description", "")).rstrip(".")


def _branches(schema: Schema) -> Iterator[Schema]:
    yield from schema.get("anyOf", [schema])


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return " ".join(f"`{value}`" for value in schema["enum"] if value is not None) + (
            " or null" if None in schema["enum"] else ""
        )
    return " or ".join(_plain_type(branch) for branch in _branches(schema))


def _plain_type(schema: Schema) -> str:
    if "$ref" in schema:
        return f"[{_words(schema['$ref'])}](#{_words(schema['$ref'])})"
    if "enum" in schema:
        return " ".join(f"`{value}`" for value in schema["enum"] if value is not None)
    kind = schema["type"]
    if kind == "null":
        return "null"
    if kind == "object":
        return f"map to {_type(schema['additionalProperties'])}"
    if kind == "array":
        if "prefixItems" in schema:
            return "`[price, size]`"
        return f"list of {_type(schema['items'])}"
    names = {"string": "text", "integer": "int", "number": "float", "boolean": "bool"}
    return names[kind] + _range(schema)


def _words(reference: str) -> str:
    return reference.rpartition("/")[2].lower()


def _range(schema: Schema) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" in [{schema['minimum']:g}, {schema['maximum']:g}]"
    if "exclusiveMinimum" in schema:
        return f" > {schema['exclusiveMinimum']:g}"
    return f" ≥ {schema['minimum']:g}" if "minimum" in schema else ""


def _unit(schema: Schema) -> str:
    for branch in _branches(schema):
        inner = branch.get("additionalProperties", branch)
        for place in _branches(inner):
            if "unit" in place:
                return str(place["unit"])
    return ""


def with_tables(page: str) -> str:
    """Return a page with new tables between ``<!-- fields: NAME -->`` and ``<!-- end -->``."""
    return re.sub(
        r"(<!-- fields: (\w+) -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}\n{table(match[2])}\n\n{match[3]}",
        page,
        flags=re.DOTALL,
    )


# -- files -------------------------------------------------------------------------------------


def files() -> dict[Path, str]:
    """Return the contents of all generated files."""
    made = {
        SCHEMAS / name: json.dumps(schema, indent=2) + "\n" for name, schema in schemas().items()
    }
    if WIRE_FORMAT.exists():
        made[WIRE_FORMAT] = with_tables(WIRE_FORMAT.read_text("utf-8"))
    return made


def main() -> int:
    """Write outdated files, or only list them."""
    parser = argparse.ArgumentParser(prog="scripts/make_schema", description=__doc__)
    parser.add_argument(
        "--check",
        action="store_true",
        help="list outdated files without writing them; exit code 1 if there are any",
    )
    check = parser.parse_args().check
    outdated = {
        path: text
        for path, text in files().items()
        if not path.exists() or path.read_text("utf-8") != text
    }
    for path, text in outdated.items():
        print(path.relative_to(ROOT))
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    return int(check and bool(outdated))


if __name__ == "__main__":
    sys.exit(main())
