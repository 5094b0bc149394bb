"""The orderbook worker: one local order book per symbol, its measures and its walls."""
