"""What processes cost, from /proc, and what machine this is."""

import os
import platform
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """A process and all its descendants that are alive, whatever session they are in."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
            except (OSError, IndexError):
                continue
    found, waiting = [], [root]
    while waiting:
        found.append(pid := waiting.pop())
        waiting += parents.get(pid, [])
    return found


def cpu_seconds(pids: list[int]) -> dict[int, float]:
    """User and system time of each process since it started; the dead are left out."""
    seconds = {}
    for pid in pids:
        try:
            fields = _stat(pid)
        except OSError:
            continue
        seconds[pid] = (int(fields[11]) + int(fields[12])) / TICKS
    return seconds


def rss_bytes(pid: int) -> int | None:
    """Resident memory; None if the process is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def command_line(pid: int) -> str:
    """The command of a process, shortened."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "?"
    return " ".join(Path(word.decode()).name for word in words if word)[:80]


def describe() -> dict[str, str | int]:
    """The machine, for the report."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.split(":", 1)[1].strip() for line in info.splitlines() if "model name" in line]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def load_average() -> float:
    """Of the last minute: a busy machine measures nothing."""
    return os.getloadavg()[0]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; the name before may hold spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
