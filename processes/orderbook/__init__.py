"""The orderbook worker: one trusted book per symbol, its measures, and the walls in it."""
