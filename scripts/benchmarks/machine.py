"""CPU time and memory of processes, from /proc, and a description of the machine."""

import os
import platform
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def descendants(root: int) -> list[int]:
    """Return a process and all its living descendants, in any session."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                children.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
            except (OSError, IndexError):
                continue
    found, waiting = [], [root]
    while waiting:
        found.append(pid := waiting.pop())
        waiting += children.get(pid, [])
    return found


def cpu_seconds(pids: list[int]) -> dict[int, float]:
    """Return user plus system time of each living process since its start."""
    seconds = {}
    for pid in pids:
        try:
            fields = _stat(pid)
        except OSError:
            continue
        seconds[pid] = (int(fields[11]) + int(fields[12])) / TICKS
    return seconds


def rss_bytes(pid: int) -> int | None:
    """Return the resident memory of a process; None if it has ended."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def command_line(pid: int) -> str:
    """Return the command line of a process, shortened."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "?"
    return " ".join(Path(word.decode()).name for word in words if word)[:80]


def describe() -> dict[str, str | int]:
    """Return a description of the machine, for the report."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.split(":", 1)[1].strip() for line in info.splitlines() if "model name" in line]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def load_average() -> float:
    """Return the load average of the last minute; figures of a busy machine are worthless."""
    return os.getloadavg()[0]


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; the name before may have spaces."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
