"""The trades worker: sliding windows over the trades of its symbols, published as metrics."""
