"""The gap ledger: gaps and followed time of all pipelines of a state directory, in SQLite."""
