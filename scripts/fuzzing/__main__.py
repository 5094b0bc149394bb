"""``python -m scripts.fuzzing TARGET SECONDS``: run atheris on one target."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris

with atheris.instrument_imports(include=["bybit_pipeline"]):
    from scripts.fuzzing.targets import SEEDS, TARGETS


def main() -> None:
    """Run; a crash is printed, and its input written to ``crash-*`` in the working directory."""
    name, seconds = sys.argv[1], sys.argv[2]
    with TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS[name]):
            (Path(corpus) / f"{number}").write_bytes(seed)
        options = [
            f"-max_total_time={seconds}",
            "-max_len=4096",
            "-timeout=10",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *options, corpus], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
