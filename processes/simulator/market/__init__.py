"""The synthetic market: instruments, order flow, books and the messages made from them."""
