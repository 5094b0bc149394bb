"""Whether an address is free, and who holds it."""

import os
import socket
from pathlib import Path

import pytest

from shared.errors import TakenError
from shared.ports import check_free, check_free_endpoint, listener, remove_socket_file


def test_a_port_that_is_listened_on_is_taken_by_a_named_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        assert os.getpid() == listener(port)
        with pytest.raises(TakenError, match=rf"^key: 127.0.0.1:{port} .* process {os.getpid()} "):
            check_free("key", "127.0.0.1", port)

    check_free("key", "127.0.0.1", port)
    assert listener(port) is None


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:0", "tcp://127.0.0.1:*"])
def test_a_port_that_the_operating_system_chooses_is_free(endpoint: str) -> None:
    check_free_endpoint("key", endpoint)


def test_a_socket_file_is_taken_only_while_somebody_listens(tmp_path: Path) -> None:
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
