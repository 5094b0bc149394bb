"""Addresses that are free, and the holders of the others."""

import errno
import os
import socket
from pathlib import Path

import pytest

from bybit_pipeline.shared.errors import TakenError
from bybit_pipeline.shared.settings.ports import (
    check_free,
    check_free_endpoint,
    listener,
    remove_socket_file,
    taken,
)


def test_the_error_about_a_taken_port_names_its_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        assert os.getpid() == listener(port)
        with pytest.raises(TakenError, match=rf"^key: 127.0.0.1:{port} .* process {os.getpid()} "):
            check_free("key", "127.0.0.1", port)

    check_free("key", "127.0.0.1", port)
    assert listener(port) is None


def test_the_error_about_an_impossible_address_has_the_reason_of_the_system() -> None:
    """The text of asyncio repeats the address."""
    refused = OSError(errno.EADDRNOTAVAIL, "error while attempting to bind on address ('h', 1)")

    assert "key: 192.0.2.1:1 cannot be bound: Cannot assign requested address" == str(
        taken("key", "192.0.2.1", 1, refused)
    )


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:0", "tcp://127.0.0.1:*"])
def test_a_port_chosen_by_the_operating_system_is_free(endpoint: str) -> None:
    check_free_endpoint("key", endpoint)


def test_a_socket_file_is_taken_only_while_a_process_listens(tmp_path: Path) -> None:
    path = tmp_path / "m"
    check_free_endpoint("key", f"ipc://{path}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(TakenError, match=r"^key: ipc://.* is taken by another process$"):
            check_free_endpoint("key", f"ipc://{path}")
    assert path.exists()
    check_free_endpoint("key", f"ipc://{path}")

    remove_socket_file(f"ipc://{path}")
    assert not path.exists()
    remove_socket_file("tcp://127.0.0.1:1")
