"""Detection of numbers that no longer follow the exchange."""
