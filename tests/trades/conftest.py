"""Fixtures of the trades tests."""

import pytest

from bybit_pipeline.processes.trades.actor import TradesWorker
from bybit_pipeline.processes.trades.aggregator import TradesAggregator
from tests.clock import FakeClock
from tests.trades.worker import make_worker


@pytest.fixture
def aggregator() -> TradesAggregator:
    aggregator = TradesAggregator()
    aggregator.subscribe("BTCUSDT")
    return aggregator


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def worker(clock: FakeClock) -> TradesWorker:
    return make_worker(clock)
