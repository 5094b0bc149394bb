"""Measures how long numbers that no longer follow the exchange are still called live."""
