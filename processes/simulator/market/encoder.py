"""
The JSON text of data messages: one function per stream, with the key order of each category.

Keys and their order follow Bybit's documentation and captures, and differ by category: spot always
has ``ts`` before ``type``, contracts only at level 1, and options add ``id``. Pure: levels and
trades in, JSON bytes out. Numbers are written in the precision of the instrument's tick and lot.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from bybit_pipeline.processes.simulator.market.instruments import OPTION_VOLATILITY, Instrument
from bybit_pipeline.processes.simulator.market.order_book import LevelChange
from bybit_pipeline.processes.simulator.market.order_flow import Fill, Match

TRADES_PER_MESSAGE = 1024
"""Trades in one message; the exchange splits larger matches."""
SPOT_TRADE_IDS = 2_290_000_000_000_000_000
"""Start of the numeric trade ids of spot."""


def encode_book(
    instrument: Instrument,
    topic: str,
    *,
    depth: int,
    is_snapshot: bool,
    exchange_ts_ms: int,
    match_ts_ms: int,
    update_id: int,
    sequence: int,
    bids: Iterable[LevelChange],
    asks: Iterable[LevelChange],
) -> bytes:
    """Return one ``orderbook`` message; ``bids`` and ``asks`` keep their order."""
    kind = "snapshot" if is_snapshot else "delta"
    data = (
        f'"data":{{"s":"{instrument.symbol}","b":{_levels(instrument, bids)},'
        f'"a":{_levels(instrument, asks)},"u":{update_id},"seq":{sequence}}}'
    )
    if instrument.category == "option":
        text = (
            f'{{"id":"{topic}-{sequence}-{exchange_ts_ms}","topic":"{topic}",'
            f'"ts":{exchange_ts_ms},{data},"type":"{kind}","cts":{match_ts_ms}}}'
        )
    elif instrument.category == "spot" or depth == 1:
        text = (
            f'{{"topic":"{topic}","ts":{exchange_ts_ms},"type":"{kind}",{data},'
            f'"cts":{match_ts_ms}}}'
        )
    else:
        text = (
            f'{{"topic":"{topic}","type":"{kind}","ts":{exchange_ts_ms},{data},'
            f'"cts":{match_ts_ms}}}'
        )
    return text.encode()


def encode_trades(topic: str, match: Match, exchange_ts_ms: int) -> Iterator[bytes]:
    """Yield the ``publicTrade`` messages of a match, up to ``TRADES_PER_MESSAGE`` trades each."""
    instrument = match.instrument
    write = _ROWS[instrument.category]
    for start in range(0, len(match.fills), TRADES_PER_MESSAGE):
        fills = match.fills[start : start + TRADES_PER_MESSAGE]
        rows = ",".join([write(instrument, fill) for fill in fills])
        yield _trade_text(instrument.category, topic, exchange_ts_ms, fills, rows).encode()


def _trade_text(
    category: str, topic: str, exchange_ts_ms: int, fills: Sequence[Fill], rows: str
) -> str:
    if category == "option":
        return (
            f'{{"id":"{topic}-{fills[-1].sequence}-{exchange_ts_ms}","topic":"{topic}",'
            f'"ts":{exchange_ts_ms},"data":[{rows}],"type":"snapshot"}}'
        )
    if category == "spot":
        return f'{{"topic":"{topic}","ts":{exchange_ts_ms},"type":"snapshot","data":[{rows}]}}'
    return f'{{"topic":"{topic}","type":"snapshot","ts":{exchange_ts_ms},"data":[{rows}]}}'


def _levels(instrument: Instrument, levels: Iterable[LevelChange]) -> str:
    price, size = instrument.tick.text, instrument.lot.text
    return "[" + ",".join([f'["{price(ticks)}","{size(lots)}"]' for ticks, lots in levels]) + "]"


def _json_bool(value: bool) -> str:
    return "true" if value else "false"


def _uuid(noise: int) -> str:
    """Return 128 random bits in the form of a version 5 UUID, as the exchange uses."""
    digits = f"{noise:032x}"
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def _contract_row(instrument: Instrument, fill: Fill) -> str:
    return (
        f'{{"T":{fill.match_ts_ms},"s":"{instrument.symbol}","S":"{fill.side}",'
        f'"v":"{instrument.lot.text(fill.lots)}","p":"{instrument.tick.text(fill.ticks)}",'
        f'"L":"{fill.direction}","i":"{_uuid(fill.noise)}","BT":{_json_bool(fill.is_block)},'
        f'"RPI":{_json_bool(fill.is_rpi)},"seq":{fill.sequence}}}'
    )


def _spot_row(instrument: Instrument, fill: Fill) -> str:
    return (
        f'{{"i":"{SPOT_TRADE_IDS + fill.number}","T":{fill.match_ts_ms},'
        f'"p":"{instrument.tick.text(fill.ticks)}","v":"{instrument.lot.text(fill.lots)}",'
        f'"S":"{fill.side}","seq":{fill.sequence},"s":"{instrument.symbol}",'
        f'"BT":{_json_bool(fill.is_block)},"RPI":{_json_bool(fill.is_rpi)}}}'
    )


def _option_row(instrument: Instrument, fill: Fill) -> str:
    price = instrument.tick.text(fill.ticks)
    return (
        f'{{"p":"{price}","v":"{instrument.lot.text(fill.lots)}","i":"{_uuid(fill.noise)}",'
        f'"T":{fill.match_ts_ms},"BT":{_json_bool(fill.is_block)},"s":"{instrument.symbol}",'
        f'"S":"{fill.side}","seq":{fill.sequence},"mP":"{instrument.start_price:.4f}",'
        f'"iP":"{instrument.index_price:.2f}","mIv":"{OPTION_VOLATILITY}",'
        f'"iv":"{OPTION_VOLATILITY}"}}'
    )


_ROWS: dict[str, Callable[[Instrument, Fill], str]] = {
    "linear": _contract_row,
    "inverse": _contract_row,
    "spot": _spot_row,
    "option": _option_row,
}
