"""Addresses to bind: whether they are free, and which process holds them otherwise."""

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

from bybit_pipeline.shared.errors import TakenError

LISTENING = "0A"
"""State of a listening socket in ``/proc/net/tcp``."""


def check_free(key: str, host: str, port: int) -> None:
    """
    Check that a TCP address can be bound.

    Raises:
        TakenError: With the configuration key and, if it is visible to us, the holder.
    """
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(address[0], socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address[4])
    except OSError as error:
        raise taken(key, host, port, error) from error


def check_free_endpoint(key: str, endpoint: str) -> None:
    """
    Check that a ZeroMQ endpoint can be bound.

    Raises:
        TakenError: With the configuration key and, if it is visible to us, the holder.
    """
    if endpoint.startswith("ipc://"):
        path = endpoint.removeprefix("ipc://")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
            if trial.connect_ex(path) == 0:
                raise TakenError(f"{key}: {endpoint} is taken by another process")
        return
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if port.isdigit() and int(port) > 0:
        check_free(key, host, int(port))


def remove_socket_file(endpoint: str) -> None:
    """Remove the file of an ``ipc://`` endpoint, which a killed process leaves behind."""
    if endpoint.startswith("ipc://"):
        Path(endpoint.removeprefix("ipc://")).unlink(missing_ok=True)


def host_port(host: str, port: int) -> str:
    """Return ``host:port`` as in a URL, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def taken(key: str, host: str, port: int, error: OSError) -> TakenError:
    """Return the error about an address that cannot be bound."""
    pid = listener(port)
    if pid is not None:
        return TakenError(f"{key}: {host}:{port} is taken by process {pid} ({_name(pid)})")
    return TakenError(f"{key}: {host}:{port} cannot be bound: {_reason(error)}")


def _reason(error: OSError) -> str:
    """Return the reason in the words of the system; those of asyncio repeat the address."""
    number = error.errno or 0
    return os.strerror(number) if number in errno.errorcode else error.strerror or str(error)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


def listener(port: int) -> int | None:
    """Return the pid of the process that listens on a TCP port; None if it is not visible to us."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and sockets & _open_files(process / "fd"):
            return int(process.name)
    return None


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(fields[9])
    return inodes


def _open_files(directory: Path) -> set[str]:
    """Return the targets of the open files of a process; empty if they are not visible to us."""
    found = set()
    try:
        for entry in directory.iterdir():
            with suppress(FileNotFoundError):  # closed since
                found.add(os.readlink(entry))
    except OSError:
        return set()
    return found
