"""The client on operating systems that lack what the pipeline itself needs."""

import subprocess
import sys

AS_ON_WINDOWS = """
import os
for name in dir(os):
    if name.startswith(("EX_", "eventfd", "pipe2", "O_NONBLOCK", "O_CLOEXEC", "getuid", "geteuid")):
        delattr(os, name)
from bybit_pipeline import AsyncPipelineClient, PipelineClient
"""


def run(code: str) -> str:
    """Standard output of a new interpreter that runs some code."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout.strip()


def test_the_client_subscribes_to_an_endpoint_on_any_system() -> None:
    code = f"{AS_ON_WINDOWS}\nwith PipelineClient('tcp://127.0.0.1:9') as client:"
    assert "False" == run(f"{code} print(client.connected)")


def test_keys_need_file_permissions() -> None:
    code = f"""{AS_ON_WINDOWS}
from bybit_pipeline.shared.errors import ConfigError
try:
    PipelineClient("tcp://127.0.0.1:9", keys="keys").open()
except ConfigError as error:
    print(error)
"""
    assert "keys: this operating system has no file permissions to check" == run(code)


def test_without_an_endpoint_the_client_says_that_pipelines_run_on_linux() -> None:
    code = f"""{AS_ON_WINDOWS}
from bybit_pipeline.shared.errors import NoPipelineError
try:
    PipelineClient().open()
except NoPipelineError as error:
    print(error)
"""
    assert "pipelines run on Linux; name the endpoint of one, such as tcp://192.0.2.1:5556" == run(
        code
    )
