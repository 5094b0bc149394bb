"""Fuzzing of all code that reads untrusted input."""
