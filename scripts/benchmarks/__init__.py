"""Benchmarks: a load server, the rivals, our pipeline, and the table that compares them."""
