"""The proxy is known, or refused, before anything starts."""

import pytest

from bybit_pipeline.shared.errors import EX_CONFIG
from bybit_pipeline.shared.settings.validation import make_config
from bybit_pipeline.supervisor.cli.main import main
from bybit_pipeline.supervisor.plan.plan import Plan, make_plan
from bybit_pipeline.supervisor.source.proxy import proxy_in_force

ENVIRON = {"HTTPS_PROXY": "http://me:secret@proxy.test:3128"}


def plan(**tables: object) -> Plan:
    return make_plan(make_config(tables), run_dir="/run/x")


def test_the_connectors_proxy_is_shown_without_its_password() -> None:
    assert "http://proxy.test:3128 (HTTPS_PROXY)" == str(proxy_in_force(plan(), ENVIRON))
    assert proxy_in_force(plan(connector={"proxy": "none"}), ENVIRON) is None


def test_the_simulator_is_never_behind_a_proxy() -> None:
    assert proxy_in_force(plan(source="sim"), ENVIRON) is None
    local = "ws://127.0.0.1:9000/v5/public/{category}"
    assert proxy_in_force(plan(url=local), {"ALL_PROXY": "socks4://p"}) is None


@pytest.mark.parametrize("command", ["check", "up"])
def test_an_unusable_proxy_ends_the_command_with_one_line_that_names_the_variable(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", "socks4://me:secret@127.0.0.1:1080")
    assert EX_CONFIG == main([command, "--source", "live"])
    [line] = capsys.readouterr().err.splitlines()
    assert "ALL_PROXY: socks4 proxies are not supported; use http://host:port" in line
    assert "secret" not in line


def test_an_unusable_proxy_of_the_configuration_is_a_mistake_of_the_file(
    tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    file = f"{tmp_path}/p.toml"
    with open(file, "w") as out:
        out.write('[connector]\nproxy = "https://me:secret@p:1"\n')
    assert EX_CONFIG == main(["check", "--config", file])
    error = capsys.readouterr().err
    assert "p.toml:2: connector.proxy: https proxies are not supported" in error
    assert "secret" not in error
