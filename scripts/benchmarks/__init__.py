"""Benchmarks: a load server, the rivals, this pipeline, and the tables that compare them."""
