"""The simulated exchange: Bybit's v5 public streams over a made market or a recorded capture."""
