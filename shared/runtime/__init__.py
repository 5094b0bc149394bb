"""What every process runs on: loop, timers, signals, logs, counters."""
