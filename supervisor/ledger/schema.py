"""
The tables of the gap ledger, and the steps from each version of them to the next.

``PRAGMA user_version`` counts the steps that a file has taken. A step is never changed once it was
released; a new one is appended.
"""

import sqlite3
from collections.abc import Sequence

from bybit_pipeline.shared.errors import PipelineError

V1 = """
CREATE TABLE gap (
    gap_id INTEGER PRIMARY KEY,
    pipeline TEXT NOT NULL,
    source TEXT,
    network TEXT NOT NULL,
    stream TEXT NOT NULL,
    category TEXT NOT NULL,
    symbol TEXT NOT NULL,
    reason TEXT NOT NULL,
    start_ms INTEGER,
    end_ms INTEGER,
    duration_s REAL,
    opened_ts_ns INTEGER,
    closed_ts_ns INTEGER,
    update_id_before INTEGER,
    update_id_after INTEGER,
    received_update_id INTEGER,
    sequence_before INTEGER,
    sequence_after INTEGER,
    trade_id_before TEXT,
    trade_id_after TEXT,
    repaired_by TEXT,
    complete INTEGER NOT NULL,
    -- Interval by which rows are selected: never null for a closed gap.
    from_ms INTEGER NOT NULL,
    to_ms INTEGER,
    is_long INTEGER NOT NULL
);
-- Short gaps that overlap an interval begin close to it; the few long and open ones are all read.
CREATE INDEX gap_by_time ON gap (is_long, from_ms);
CREATE INDEX gap_by_symbol ON gap (symbol, is_long, from_ms);
CREATE INDEX gap_open ON gap (pipeline) WHERE duration_s IS NULL;

CREATE TABLE followed (
    pipeline TEXT NOT NULL,
    source TEXT NOT NULL,
    network TEXT NOT NULL,
    stream TEXT NOT NULL,
    category TEXT NOT NULL,
    symbol TEXT NOT NULL,
    start_ms INTEGER NOT NULL,
    end_ms INTEGER NOT NULL,
    update_id INTEGER,
    sequence INTEGER,
    trade_id TEXT,
    is_open INTEGER NOT NULL,
    PRIMARY KEY (pipeline, source, network, stream, category, symbol, start_ms)
) WITHOUT ROWID;

-- The sum of all gaps that ever closed: rows are deleted after some time, a counter never falls.
CREATE TABLE untrusted (
    pipeline TEXT NOT NULL,
    stream TEXT NOT NULL,
    category TEXT NOT NULL,
    symbol TEXT NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (pipeline, stream, category, symbol)
) WITHOUT ROWID;

-- When each pipeline last wrote, by our clock: an open gap of one that has ended lasts until then.
CREATE TABLE pipeline (pipeline TEXT PRIMARY KEY, seen_ms INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE reserved (numbers INTEGER NOT NULL);
INSERT INTO reserved VALUES (1);
"""

MIGRATIONS: Sequence[str] = (V1,)


class NewerLedgerError(PipelineError):
    """The file was written by a newer version of this program."""


def migrate(connection: sqlite3.Connection, steps: Sequence[str] = MIGRATIONS) -> None:
    """
    Bring a file to the newest version, each step completely or not at all.

    Raises:
        NewerLedgerError: If the file is newer than this program.
    """
    while True:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(steps):
            raise NewerLedgerError(
                f"gap ledger: written by a newer version (schema {version}, known: {len(steps)})"
            )
        if version == len(steps):
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Another pipeline may have taken the step since.
            if connection.execute("PRAGMA user_version").fetchone() == (version,):
                for statement in _statements(steps[version]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _statements(script: str) -> list[str]:
    """Split a script: ``executescript`` would commit before it."""
    found, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            found.append(current)
            current = ""
    return found
