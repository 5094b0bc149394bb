"""
CURVE keys of the metrics socket: their files, permissions and use by sockets.

On the machine that publishes, a directory contains:

    server.key      secret key of the metrics socket
    server.pub      its public key, which clients pin
    client.key      secret key of the tools of this machine (tail, watch, PipelineClient)
    clients/        public keys of the allowed clients, one file NAME.pub each
    handout/NAME/   client.key and server.pub for the machine of client NAME

Every file is one line: a key of 32 bytes as 40 characters of Z85 (ZeroMQ RFC 32). A subscriber
needs ``client.key`` and ``server.pub`` only.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from bybit_pipeline.shared.errors import ConfigError, TakenError
from bybit_pipeline.shared.settings.permissions import directory_fault, readers_fault, writers_fault

WHERE = "security.keys"
LOCAL = "local"
"""Name of the tools of this machine among the clients."""
CLIENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
Z85_KEY = re.compile(rb"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
FILE_BYTES_MAX = 100
CLIENTS_MAX = 10_000
RETRY_MS = 200
"""Reconnect interval of a client: each attempt costs the server a handshake."""


@dataclass(frozen=True)
class ServerKeys:
    """The key pair of the metrics socket, in Z85."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class ClientKeys:
    """A subscriber's key pair and the server's public key that it pins, in Z85."""

    server: bytes
    public: bytes
    secret: bytes = field(repr=False)

    def apply(self, socket: "zmq.Socket[bytes]") -> None:
        """Let a socket talk to the pinned server only; call it before it connects."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt(zmq.RECONNECT_IVL, RETRY_MS)


def clients_dir(directory: Path) -> Path:
    """Return the directory of the public keys of the allowed clients."""
    return directory / "clients"


# -- creating ----------------------------------------------------------------------------------


def make_server_keys(directory: Path) -> dict[str, bytes]:
    """
    Create the keys of the server and of the tools of this machine; return public keys by name.

    Raises:
        TakenError: If keys exist already, or the directory is not private.
    """
    _make_private(directory)
    _check_absent(directory / "server.key", directory / "client.key")
    server, secret = zmq.curve_keypair()
    client, client_secret = zmq.curve_keypair()
    _make_private(clients_dir(directory))
    _write_new(clients_dir(directory) / f"{LOCAL}.pub", client)
    _write_new(directory / "client.key", client_secret)
    _write_new(directory / "server.pub", server)
    _write_new(directory / "server.key", secret)
    return {"server": server, LOCAL: client}


def make_client_keys(directory: Path, name: str) -> tuple[bytes, Path]:
    """
    Create the keys of one more client and allow it.

    Returns:
        The public key of the client, and the directory to move to its machine.

    Raises:
        ConfigError: If the name is not valid, or the server has no key.
        TakenError: If the client exists already, or the directory is not private.
    """
    if not CLIENT_NAME.fullmatch(name):
        raise ConfigError(
            "--client", f"{name!r} is not a valid name", "up to 32 letters, digits, - and _"
        )
    server = read_server_keys(directory).public
    allowed, handout = clients_dir(directory) / f"{name}.pub", directory / "handout" / name
    _check_absent(allowed, handout)
    public, secret = zmq.curve_keypair()
    for made in (directory, directory / "handout", handout):
        _make_private(made)
    _write_new(handout / "client.key", secret)
    _write_new(handout / "server.pub", server)
    _write_new(allowed, public)
    return public, handout


def _make_private(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fault = directory_fault(directory)
    except OSError as error:
        raise TakenError(f"keys: {directory} cannot be created: {error.strerror}") from error
    if fault is not None:
        raise TakenError(f"keys: {directory} {fault}")


def _check_absent(*paths: Path) -> None:
    for path in paths:
        if os.path.lexists(path):
            raise TakenError(f"keys: {path} exists; move it away to create a new one")


def _write_new(path: Path, key: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key + b"\n")
    except OSError as error:
        raise TakenError(f"keys: {path} cannot be written: {error.strerror}") from error


# -- reading -----------------------------------------------------------------------------------


def read_server_keys(directory: Path) -> ServerKeys:
    """
    Read the keys of the metrics socket.

    Raises:
        ConfigError: If they are missing or unreadable, or if other users can read them.
    """
    secret = _read_key(directory / "server.key", is_secret=True)
    return ServerKeys(zmq.curve_public(secret), secret)


def read_client_keys(directory: Path) -> ClientKeys:
    """
    Read the keys of a subscriber.

    Raises:
        ConfigError: If they are missing or unreadable, or if other users can read them.
    """
    secret = _read_key(directory / "client.key", is_secret=True)
    server = _read_key(directory / "server.pub", is_secret=False)
    return ClientKeys(server, zmq.curve_public(secret), secret)


def read_allowed(directory: Path) -> tuple[dict[bytes, str], list[str]]:
    """
    Read the public keys of the allowed clients.

    Returns:
        The names of the clients by public key (32 bytes), and one line for each invalid file.

    Raises:
        ConfigError: If the directory cannot be read, or other users can write to it.
    """
    allowed: dict[bytes, str] = {}
    faults = []
    for path in _key_files(clients_dir(directory)):
        try:
            allowed[z85.decode(_read_key(path, is_secret=False))] = path.stem
        except ConfigError as error:
            faults.append(str(error))
    return allowed, faults


def _key_files(directory: Path) -> list[Path]:
    try:
        fault = writers_fault(directory.stat())
        paths = sorted(path for path in directory.iterdir() if path.suffix == ".pub")
    except OSError as error:
        raise ConfigError(WHERE, f"{directory}: {error.strerror}") from error
    if fault is not None:
        raise ConfigError(WHERE, f"{directory} {fault}")
    if len(paths) > CLIENTS_MAX:
        raise ConfigError(WHERE, f"{directory} has {len(paths)} keys", f"at most {CLIENTS_MAX}")
    return paths


def _read_key(path: Path, *, is_secret: bool) -> bytes:
    try:
        # O_NONBLOCK: a pipe in the place of the file must not block us.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            info = os.fstat(file.fileno())
            fault = readers_fault(info) if is_secret else writers_fault(info)
            text = file.read(FILE_BYTES_MAX).strip()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        hint = "bybit-pipeline keys to create keys" if missing else ""
        raise ConfigError(WHERE, f"{path}: {error.strerror}", hint) from error
    if fault is not None:
        raise ConfigError(WHERE, f"{path} {fault}")
    if not Z85_KEY.fullmatch(text):
        raise ConfigError(WHERE, f"{path} does not contain a key", "40 characters of Z85")
    return text
