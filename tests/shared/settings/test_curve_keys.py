"""Key files: how they are created, and which are rejected."""

import os
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from bybit_pipeline.shared.errors import ConfigError, TakenError
from bybit_pipeline.shared.settings.curve_keys import (
    make_client_keys,
    make_server_keys,
    read_allowed,
    read_client_keys,
    read_server_keys,
)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A directory with a server's keys."""
    make_server_keys(tmp_path / "keys")
    return tmp_path / "keys"


def test_only_our_user_can_read_the_keys(keys: Path) -> None:
    make_client_keys(keys, "bob")
    entries = [keys, *keys.rglob("*")]
    assert {0o700} == {entry.stat().st_mode & 0o777 for entry in entries if entry.is_dir()}
    assert {0o600} == {entry.stat().st_mode & 0o777 for entry in entries if entry.is_file()}


def test_the_created_keys_belong_together(keys: Path) -> None:
    public, handout = make_client_keys(keys, "bob")
    server, local, bob = read_server_keys(keys), read_client_keys(keys), read_client_keys(handout)
    assert server.public == local.server == bob.server
    assert public == bob.public
    allowed, faults = read_allowed(keys)
    assert {z85.decode(local.public): "local", z85.decode(bob.public): "bob"} == allowed
    assert [] == faults


def test_existing_keys_are_not_overwritten(keys: Path) -> None:
    make_client_keys(keys, "bob")
    before = {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()}
    with pytest.raises(TakenError, match=r"server\.key exists"):
        make_server_keys(keys)
    with pytest.raises(TakenError, match=r"bob\.pub exists"):
        make_client_keys(keys, "bob")
    assert before == {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()}


def test_a_link_in_the_place_of_a_key_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o700)
    (tmp_path / "keys" / "server.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TakenError, match="exists"):
        make_server_keys(tmp_path / "keys")
    assert not (tmp_path / "elsewhere").exists()


def test_keys_are_not_created_in_a_directory_open_to_others(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys").chmod(0o755)
    with pytest.raises(TakenError, match="open to others"):
        make_server_keys(tmp_path / "keys")


@pytest.mark.parametrize("name", ["", "../bob", "a b", ".hidden", "x" * 33])
def test_the_name_of_a_client_is_plain(keys: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is not a valid name"):
        make_client_keys(keys, name)


def test_a_client_needs_the_key_of_the_server(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bybit-pipeline keys"):
        make_client_keys(tmp_path, "bob")


def test_a_secret_that_others_can_read_is_rejected(keys: Path) -> None:
    for name, read in (("server.key", read_server_keys), ("client.key", read_client_keys)):
        (keys / name).chmod(0o640)
        with pytest.raises(ConfigError, match=rf"{name} open to others \(mode 0640\)"):
            read(keys)


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 41, b"\xff" * 40, b"y" * 39 + b"~"])
def test_a_file_without_a_key_allows_no_client_and_is_named(keys: Path, content: bytes) -> None:
    (keys / "clients" / "bob.pub").write_bytes(content)
    allowed, faults = read_allowed(keys)
    assert ["local"] == list(allowed.values())
    assert 1 == len(faults)
    assert "bob.pub does not contain a key" in faults[0]


def test_a_pipe_in_the_place_of_a_key_does_not_block(keys: Path) -> None:
    os.mkfifo(keys / "clients" / "bob.pub", 0o600)
    assert 1 == len(read_allowed(keys)[1])


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_directory_of_clients_that_others_can_change_is_rejected(keys: Path, mode: int) -> None:
    (keys / "clients").chmod(mode)
    with pytest.raises(ConfigError, match="can be changed by others"):
        read_allowed(keys)


def test_secrets_are_not_printed(keys: Path) -> None:
    server, client = read_server_keys(keys), read_client_keys(keys)
    assert server.secret.decode() not in repr(server)
    assert client.secret.decode() not in repr(client)


def test_the_library_supports_curve() -> None:
    """Everything else about keys depends on it."""
    assert zmq.has("curve")
