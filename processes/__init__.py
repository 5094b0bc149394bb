"""One folder per kind of process; no process imports another."""
