"""The simulated exchange: Bybit's v5 public streams over a synthetic market or a capture."""
