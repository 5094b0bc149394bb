"""The page in a real browser on a real pipeline: it shows what the metrics socket publishes."""

import json
import os
import re
import signal
import time
from typing import Any

import pytest

from bybit_pipeline.processes.dashboard.page_state import PageState
from bybit_pipeline.processes.dashboard.server import Server
from tests.dashboard.browser import Browser, wait
from tests.dashboard.payloads import book, process, trades, trades_gap
from tests.system.pipeline import Payload, Pipeline, kill

pytestmark = pytest.mark.timeout(120)

READ = """JSON.stringify({
  ladder: {...document.querySelector('#ladder').dataset,
    bids: [...document.querySelectorAll('#bids tr')].map(r => [...r.cells].map(c => c.textContent)),
    asks: [...document.querySelectorAll('#asks tr')].map(r => [...r.cells].map(c => c.textContent)),
    walls: [...document.querySelectorAll('#ladder tr.wall')].map(r => r.cells[0].textContent),
    mid: document.querySelector('#symbol-facts dd').textContent},
  windows: {...document.querySelector('#windows').dataset,
    price: document.querySelector('#symbol-price').textContent,
    heads: [...document.querySelectorAll('#windows thead th')].map(c => c.textContent),
    lines: [...document.querySelectorAll('#windows tbody tr')].map(
      r => [...r.cells].map(c => c.textContent))},
  rows: [...document.querySelectorAll('#markets tbody tr')].map(r => ({...r.dataset,
    cells: Object.fromEntries([...r.cells].map(c => [c.dataset.column, c.textContent]))})),
})"""
LINES = {
    "Trades": "trades",
    "Trades per minute": "tpm",
    "Volume": "volume",
    "Bought": "buy_volume",
    "Sold": "sell_volume",
    "Δ volume": "vol_delta",
    "VWAP": "vwap",
    "High": "high",
    "Low": "low",
}
ROW = "document.querySelector('#markets tr[data-name=\"linear.{}\"]')"
STATE = ROW + ".querySelector('.state').textContent"
CELLS = "[..." + ROW + ".cells].map(c => c.textContent)"
NONE = "—"


def assert_shows(text: str, value: float | None, *, exact: bool = False) -> None:
    """Assert that a text is a number, rounded to the decimals of the text."""
    if value is None:
        assert NONE == text
        return
    assert re.fullmatch(r"[-+]?[\d,]+(\.\d+)?", text), (text, value)
    shown = float(text.replace(",", ""))
    decimals = len(text.partition(".")[2])
    tolerance = 0 if exact else 0.5 * 10**-decimals + 1e-9 * abs(value)
    assert abs(shown - value) <= tolerance, (text, value)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class MetricsSocket:
    """The messages of the metrics socket, by topic, epoch and seq."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._messages: dict[tuple[str, str, int], Payload] = {}

    def message(self, topic: str, epoch: str, seq: str) -> Payload:
        key = (topic, epoch, int(seq))
        wait(lambda: key in self._received(), f"{key} on the socket", 5)
        return self._messages[key]

    def _received(self) -> dict[tuple[str, str, int], Payload]:
        while self._pipeline.socket.poll(0):
            for message in self._pipeline.messages(timeout_s=0):
                number = message.get("seq")
                if isinstance(number, int):
                    self._messages[message["topic"], message["epoch"], number] = message
        return self._messages


def check_ladder(socket: MetricsSocket, ladder: dict[str, Any]) -> None:
    book = socket.message("orderbook.linear.BTCUSDT", ladder["epoch"], ladder["seq"])
    assert "live" == book["state"]
    for side, levels in (("bids", book["bids"]), ("asks", book["asks"][::-1])):
        assert len(levels) == len(ladder[side])
        for (price, size, _), level in zip(ladder[side], levels, strict=True):
            assert_shows(price, level[0], exact=True)
            assert_shows(size, level[1], exact=True)
    total = sum(size for _, size in book["bids"])
    assert_shows(ladder["bids"][-1][2], total)
    assert_shows(ladder["mid"], book["mid_price"])
    shown = {price for price, _ in (*book["bids"], *book["asks"])}
    walls = {wall["price"] for wall in book["densities"]} & shown
    assert walls == {float(text.replace(",", "")) for text in ladder["walls"]}


def check_windows(socket: MetricsSocket, windows: dict[str, Any]) -> None:
    trades = socket.message("trades.linear.BTCUSDT", windows["epoch"], windows["seq"])
    assert_shows(windows["price"], trades["last_price"], exact=True)
    assert ["", *trades["windows"]] == windows["heads"]
    for title, *texts in windows["lines"]:
        if title in LINES:
            for text, window in zip(texts, trades["windows"].values(), strict=True):
                assert_shows(text, window[LINES[title]])


def check_row(socket: MetricsSocket, row: dict[str, Any]) -> None:
    cells = row["cells"]
    book = socket.message(f"orderbook.{row['name']}", row["bookEpoch"], row["bookSeq"])
    trades = socket.message(f"trades.{row['name']}", row["tradesEpoch"], row["tradesSeq"])
    assert book["state"] == cells["state"]
    assert_shows(cells["price"], trades["last_price"], exact=True)
    assert_shows(cells["tpm"], trades["windows"]["60s"]["tpm"])
    assert_shows(cells["delta"], trades["windows"]["60s"]["vol_delta"])
    assert_shows(cells["spread"], book["spread_bps"])
    assert_shows(cells["imbalance"], book["imbalance"]["10"])
    walls = book["densities"]
    if not walls:
        assert "no wall" == cells["wall"]
        return
    nearest = min(walls, key=lambda wall: wall["distance_bps"])
    side, price, _, distance = cells["wall"].split(" ")
    assert nearest["side"] == side
    assert_shows(price, nearest["price"], exact=True)
    assert_shows(distance, nearest["distance_bps"])


def test_numbers_on_the_page_equal_those_of_the_socket(page: Browser, pipeline: Pipeline) -> None:
    """For the same epoch and seq, in several different states of the page."""
    socket = MetricsSocket(pipeline)
    seen = set()

    def look() -> bool:
        shown = json.loads(page.evaluate(READ))
        ladder, windows = shown["ladder"], shown["windows"]
        if ladder["seq"] and windows["seq"] and (ladder["seq"], windows["seq"]) not in seen:
            seen.add((ladder["seq"], windows["seq"]))
            check_ladder(socket, ladder)
            check_windows(socket, windows)
            assert 3 == len(shown["rows"])
            for row in shown["rows"]:
                check_row(socket, row)
        return len(seen) >= 8

    wait(look, "eight states of the page", 15)


def test_the_header_shows_simulated_data_and_readiness(page: Browser) -> None:
    assert "SIMULATED · NOT REAL PRICES" == page.evaluate(
        "document.querySelector('#source').textContent"
    )
    page.until("document.querySelector('#ready').dataset.ready === 'yes'")
    assert "SIM" in page.evaluate("document.title")
    names = page.evaluate("[...document.querySelectorAll('#processes tr')].length")
    assert 8 == names, "a header and seven processes"


def test_charts_start_before_the_page_was_opened(page: Browser) -> None:
    page.until("document.querySelectorAll('.chart canvas').length === 3")
    label = page.until(
        "document.querySelector('#chart-price').ariaLabel?.includes('now 6') && "
        "document.querySelector('#chart-price').ariaLabel"
    )
    assert re.match(r"Mid price over 5 min: from [\d,.]+ to [\d,.]+, now [\d,.]+", label)
    drawn = page.evaluate(
        "(() => { const c = document.querySelector('#chart-price canvas');"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " return d.some(value => value > 0); })()"
    )
    assert drawn


def test_a_killed_worker_shows_within_two_seconds(page: Browser, pipeline: Pipeline) -> None:
    """Its books lose their numbers in the table and in the order book, and get them back."""
    page.evaluate(
        "window.seen = []; new MutationObserver(() => {"
        " const state = " + STATE.format("BTCUSDT") + ";"
        " if (state !== seen.at(-1)?.state) seen.push({state, at: Date.now(),"
        " cells: " + CELLS.format("BTCUSDT") + ","
        " levels: document.querySelectorAll('#bids tr, #asks tr').length}); })"
        ".observe(document.body, {attributes: true, attributeFilter: ['data-version']}); 0"
    )
    victim = pipeline.pid("orderbook-0")
    killed_ms = time.time() * 1000
    kill(victim)

    page.until(
        "seen.some(entry => entry.state.startsWith('stale')) && seen.at(-1).state === 'live'"
    )
    seen = json.loads(page.evaluate("JSON.stringify(seen)"))

    first = next(entry for entry in seen if entry["state"].startswith("stale"))
    assert "stale: process_down" == first["state"]
    assert first["at"] - killed_ms < 2000
    assert 0 == first["levels"]
    assert {NONE} == {first["cells"][index] for index in (4, 7, 8)}, "spread, imbalance, wall"
    page.until(
        "[...document.querySelectorAll('#events li')].some("
        "li => /orderbook-0: (up → restarting|replaced)/.test(li.textContent))"
    )
    page.until(
        f"document.querySelector('#processes [data-process=orderbook-0]').dataset.pid"
        f" > 0 && document.querySelector('#processes [data-process=orderbook-0]')"
        f".dataset.pid != {victim}"
    )
    page.until("document.querySelectorAll('#gaps tbody tr').length >= 3")


def test_a_closed_gap_of_trades_is_not_shown_as_open(chromium: Browser) -> None:
    server = Server("127.0.0.1", 0, PageState("60s", "10"), now_ms)
    with server.lock:
        server.page.set_live(now_ms())
        server.page.take(trades_gap(1, "opened"), now_ms())
        server.page.take(trades_gap(1, "closed", 4_000), now_ms())
        server.notify()
    try:
        chromium.open(server.url)
        chromium.until("document.querySelector('#gaps-count').textContent === '0 open, 1 closed'")
        row = chromium.evaluate("document.querySelector('#gaps tbody tr').textContent")
        assert row.endswith("disconnected3.0 s"), row
    finally:
        chromium.open("about:blank")
        server.close()


def test_a_quiet_book_is_old_but_heard_and_trades_do_not_count_for_it(chromium: Browser) -> None:
    """The page distinguishes a market without changes from one that nobody vouches for."""
    server, now_ns = Server("127.0.0.1", 0, PageState("60s", "10"), now_ms), time.time_ns()
    old: Payload = {"publish_ts_ns": now_ns, "recv_ts_ns": now_ns - 60_000_000_000}
    with server.lock:
        server.page.set_live(now_ms())
        server.page.take(book(alive_ts_ns=now_ns - 30_000_000_000, **old), now_ms())
        server.page.take(trades(alive_ts_ns=now_ns, **old), now_ms())
        server.notify()
    try:
        chromium.open(f"{server.url}#linear.BTCUSDT")
        changed = chromium.until("document.querySelector('#symbol-changed').textContent")
        heard = chromium.evaluate("document.querySelector('#symbol-heard').textContent")
        assert re.fullmatch(r"book changed 1m 0\ds ago · last trade 1m 0\ds ago", changed)
        assert re.fullmatch(r"book heard 3\d s ago · trades heard [0-2]\.\d s ago", heard)
        assert "old" == chromium.evaluate("document.querySelector('#symbol-heard').className")
        cell = ROW.format("BTCUSDT") + ".querySelector('[data-column=heard]')"
        assert re.fullmatch(r"3\d · [0-2]\.\d", chromium.evaluate(f"{cell}.textContent"))
        assert "old" == chromium.evaluate(f"{cell}.className")

        # Nothing is published any more: the page shows it without any further update.
        chromium.until("document.querySelector('#symbol-updated').className === 'old'")
    finally:
        chromium.open("about:blank")
        server.close()


@pytest.mark.parametrize("width", [1280, 1400, 1440, 1600, 1920])
def test_no_column_of_the_markets_is_cut_off(chromium: Browser, width: int) -> None:
    server = Server("127.0.0.1", 0, PageState("60s", "10"), now_ms)
    wall = {**book()["densities"][1], "price": 65_110.7, "distance_bps": 13.8}
    wide: Payload = {"best_bid": 65_110.7, "best_ask": 65_110.8, "densities": [wall]}
    ended: Payload = {"state": "stale", "reason": "process_silent", "bids": [], "asks": []}
    with server.lock:
        server.page.set_live(now_ms())
        server.page.take(book(**wide), now_ms())
        server.page.take(trades(last_price=65_110.7), now_ms())
        server.page.take(book("ETHUSDT", **ended), now_ms())
        server.page.take(trades("ETHUSDT"), now_ms())
        server.notify()
    try:
        chromium.resize(width, 1000)
        chromium.open(f"{server.url}#linear.BTCUSDT")
        chromium.until("document.querySelectorAll('#markets tbody tr').length === 2")
        over = "(s => s.scrollWidth - s.clientWidth)(document.querySelector('#markets-scroll'))"
        assert 0 == chromium.evaluate(over)
    finally:
        chromium.open("about:blank")
        chromium.resize(1440, 1000)
        server.close()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("live", "LIVE"),
        ("waiting", "NO LIVE DATA YET"),
        ("offline", "NO CONNECTION"),
        ("custom", "h:9"),
        ("sim", "SIMULATED · NOT REAL PRICES"),
    ],
)
def test_the_badge_says_live_only_while_data_of_bybit_arrive(
    chromium: Browser, kind: str, text: str
) -> None:
    server = Server("127.0.0.1", 0, PageState("60s", "10"), now_ms)
    link: Payload = {"connected": False, "failure": "403", "next_attempt_ts_ms": now_ms() + 60_000}
    with server.lock:
        server.page.set_live(now_ms())
        server.page.take(book(), now_ms())
        server.page.take(
            process("supervisor", 1, ready=True, feed={"kind": kind, "host": "h:9"}), now_ms()
        )
        server.page.take(process("connector-linear-0", 1, topics={}, **link), now_ms())
        server.notify()
    try:
        chromium.open(f"{server.url}#linear.BTCUSDT")
        chromium.until(f"document.querySelector('#source').textContent === '{text}'")
        row = chromium.evaluate("document.querySelectorAll('#processes tbody tr')[1].textContent")
        assert re.search(r"NOT CONNECTED: 403, next attempt in (5\d s|1m 00s)", row)
    finally:
        chromium.open("about:blank")
        server.close()


def test_a_hidden_page_has_no_stream_and_is_complete_when_visible_again(
    page: Browser, pipeline: Pipeline
) -> None:
    hide = (
        "Object.defineProperty(document, 'hidden', {{value: {}, configurable: true}});"
        "document.dispatchEvent(new Event('visibilitychange')); 0"
    )

    def wait_for_streams(count: int) -> None:
        since_ns = time.time_ns()
        pipeline.first(
            lambda message: (
                message["topic"] == "process.dashboard"
                and message["publish_ts_ns"] > since_ns
                and message["streams"] == count
            ),
            10,
        )

    wait_for_streams(1)
    page.evaluate(hide.format("true"))
    wait_for_streams(0)
    assert "PAUSED" == page.evaluate("document.querySelector('#source').textContent")
    assert [NONE] * 7 == page.evaluate(CELLS.format("BTCUSDT"))[2:]
    assert "paused" in page.evaluate("document.title")
    assert page.evaluate("document.querySelector('#banner').hidden")

    page.evaluate(hide.format("false"))
    page.until("document.querySelectorAll('#bids tr').length === 10")
    page.until("document.querySelectorAll('#markets .state.good').length === 3")
    page.until("document.querySelectorAll('#gaps tbody tr').length >= 3")


def test_a_hung_worker_is_shown_before_it_is_restarted(page: Browser, pipeline: Pipeline) -> None:
    victim = pipeline.pid("trades-0")
    began = time.monotonic()
    os.kill(victim, signal.SIGSTOP)

    page.until(STATE.format("BTCUSDT") + " === 'trades stale'")
    assert time.monotonic() - began < 2.0
    assert [NONE] * 3 == [page.evaluate(CELLS.format("BTCUSDT"))[index] for index in (3, 5, 6)]
    assert NONE == page.evaluate("document.querySelector('#symbol-price').textContent")

    os.kill(victim, signal.SIGCONT)
    page.until("document.querySelectorAll('#markets .state.good').length === 3")


@pytest.mark.parametrize(
    ("process_name", "condition"),
    [
        ("forwarder", "document.body.dataset.metrics === 'silent'"),
        ("dashboard", "document.body.dataset.connection === 'lost'"),
    ],
)
def test_a_page_whose_source_hangs_has_no_numbers_within_two_seconds(
    page: Browser, pipeline: Pipeline, process_name: str, condition: str
) -> None:
    victim = pipeline.pid(process_name)
    began = time.monotonic()
    os.kill(victim, signal.SIGSTOP)
    try:
        page.until(condition)
        assert time.monotonic() - began < 2.0
        assert "STALE" == page.evaluate("document.querySelector('#source').textContent")
        assert [NONE] * 7 == page.evaluate(CELLS.format("ETHUSDT"))[2:]
    finally:
        os.kill(victim, signal.SIGCONT)
    page.until("document.querySelectorAll('#markets .state.good').length === 3")
    page.problems.clear()


def test_without_the_forwarder_all_numbers_disappear(page: Browser, pipeline: Pipeline) -> None:
    page.evaluate(
        "window.seen = []; new MutationObserver(() => {"
        " if (document.body.dataset.metrics !== 'live') seen.push({at: Date.now(),"
        " source: document.querySelector('#source').textContent,"
        " banner: document.querySelector('#banner').textContent,"
        " cells: " + CELLS.format("ETHUSDT") + "}); })"
        ".observe(document.body, {attributes: true, attributeFilter: ['data-version']}); 0"
    )
    killed_ms = time.time() * 1000
    kill(pipeline.pid("forwarder"))

    page.until("seen.length > 0")
    first = json.loads(page.evaluate("JSON.stringify(seen[0])"))

    assert first["at"] - killed_ms < 2000
    assert "STALE" == first["source"]
    assert "metrics socket was lost" in first["banner"]
    assert ["lost", *[NONE] * 7] == first["cells"][1:]
    page.until("document.body.dataset.metrics === 'live'")
    page.until("document.querySelectorAll('#markets .state.good').length === 3")


def test_a_killed_dashboard_is_reported_and_reconnected(page: Browser, pipeline: Pipeline) -> None:
    kill(pipeline.pid("dashboard"))

    page.until("document.body.dataset.connection === 'lost'", 2)
    assert "STALE" == page.evaluate("document.querySelector('#source').textContent")
    assert "connection to the dashboard was lost" in page.evaluate(
        "document.querySelector('#banner').textContent"
    )
    assert [NONE] * 7 == page.evaluate(CELLS.format("SOLUSDT"))[2:]
    assert 0 == page.evaluate("document.querySelectorAll('#bids tr').length")

    page.until("document.body.dataset.connection === 'open'", 15)
    page.until("document.querySelectorAll('#bids tr').length === 10")
    assert page.evaluate("document.querySelector('#banner').hidden")
    refused = [problem for problem in page.problems if "ERR_CONNECTION_REFUSED" not in problem]
    page.problems[:] = [text for text in refused if "ERR_INCOMPLETE_CHUNKED" not in text]


def test_markets_are_selected_and_sorted_with_the_keyboard(page: Browser) -> None:
    focused = "document.activeElement.dataset.name"
    page.press("/", 191, "/")
    assert "filter" == page.evaluate("document.activeElement.id")
    page.press("ArrowDown", 40)
    assert "linear.BTCUSDT" == page.evaluate(focused)
    page.press("ArrowDown", 40)
    assert "linear.ETHUSDT" == page.evaluate(focused)
    assert "none" != page.evaluate("getComputedStyle(document.activeElement).outlineStyle")

    page.press("Enter", 13, "\r")
    page.until("document.querySelector('#symbol-title').textContent === 'ETHUSDT linear'")
    page.until("document.querySelectorAll('#bids tr').length === 10")
    assert "#linear.ETHUSDT" == page.evaluate("location.hash")
    assert "true" == page.evaluate(ROW.format("ETHUSDT") + ".ariaSelected")

    page.evaluate("document.querySelector('#markets th button').focus()")
    page.press("Enter", 13, "\r")
    assert "descending" == page.evaluate("document.querySelector('#markets th').ariaSort")
    assert "linear.SOLUSDT" == page.evaluate(
        "document.querySelector('#markets tbody tr').dataset.name"
    )


def test_the_filter_narrows_the_table(page: Browser) -> None:
    page.press("/", 191, "/")
    page.call("Input.insertText", text="sol")

    page.until("document.querySelectorAll('#markets tbody tr').length === 1")
    assert "1 of 3" == page.evaluate("document.querySelector('#markets-count').textContent")
    page.press("Escape", 27)
    page.until("document.querySelectorAll('#markets tbody tr').length === 3")


def test_it_fits_a_phone_and_every_control_has_a_name(page: Browser) -> None:
    page.resize(390, 844, scale=2, phone=True)

    page.until("document.documentElement.scrollWidth <= 390")
    page.until("[...document.querySelectorAll('.chart canvas')].every(c => c.clientWidth < 390)")
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"]
        and node["role"]["value"]
        in ("button", "link", "searchbox", "checkbox", "radio", "image", "table", "region")
    ]
    assert len(named) > 15
    assert [] == [role for role, name in named if not name]


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_text_is_readable_in_both_colour_schemes(page: Browser, scheme: str) -> None:
    """A contrast of 4.5 to 1 between every text colour and the panel behind it (WCAG AA)."""
    page.prefer(scheme)
    ratios = json.loads(
        page.evaluate("""JSON.stringify((() => {
      const style = getComputedStyle(document.documentElement);
      const light = (name) => {
        const hex = style.getPropertyValue(name).trim().slice(1);
        const part = (at) => { const c = parseInt(hex.slice(at, at + 2), 16) / 255;
          return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
        return 0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4);
      };
      const panel = light('--panel');
      return Object.fromEntries(['text', 'dim', 'buy', 'sell', 'warn', 'bad', 'good', 'accent',
        'wall'].map(name => { const [a, b] = [light('--' + name), panel].sort((x, y) => y - x);
        return [name, (a + 0.05) / (b + 0.05)]; }));
    })())""")
    )
    assert {} == {name: ratio for name, ratio in ratios.items() if not ratio >= 4.5}
