"""Clients admitted by the forwarder's authenticator: the decision, without a socket."""

import pytest

from bybit_pipeline.processes.forwarder.authenticator import zap_answer

KEY = b"k" * 32


def request(**changes: bytes) -> list[bytes]:
    fields = {
        "version": b"1.0",
        "id": b"7",
        "domain": b"metrics",
        "address": b"127.0.0.1",
        "identity": b"",
        "mechanism": b"CURVE",
        "key": KEY,
        **changes,
    }
    return list(fields.values())


def test_an_allowed_key_is_admitted_by_name() -> None:
    answer, name = zap_answer(request(), {KEY: "bob"})
    assert "bob" == name
    assert [b"1.0", b"7", b"200", b"OK", b"bob", b""] == answer


@pytest.mark.parametrize(
    "refused",
    [
        request(key=b"x" * 32),
        request(key=b""),
        request(mechanism=b"NULL"),
        request(mechanism=b"PLAIN"),
        request(version=b"2.0"),
        request()[:6],
        [*request(), b"more"],
        [b""],
    ],
)
def test_everything_else_is_refused(refused: list[bytes]) -> None:
    answer, name = zap_answer(refused, {KEY: "bob"})
    assert name is None
    assert b"400" == answer[2]
