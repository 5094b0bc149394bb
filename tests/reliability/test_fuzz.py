"""The fuzz targets with random and with slightly damaged input."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scripts.fuzzing import targets

NEAR = [(name, seed) for name, seeds in targets.SEEDS.items() for seed in seeds]


@settings(max_examples=500, deadline=None)
@given(name=st.sampled_from(list(targets.TARGETS)), data=st.binary(max_size=300))
def test_random_bytes_are_rejected_without_a_crash(name: str, data: bytes) -> None:
    targets.TARGETS[name](data)


@settings(max_examples=1_500, deadline=None)
@given(
    start=st.sampled_from(NEAR),
    at=st.integers(0, 400),
    cut=st.integers(0, 20),
    put=st.binary(max_size=20),
)
@example(start=NEAR[0], at=0, cut=0, put=b"")
def test_damaged_messages_are_rejected_or_harmless(
    start: tuple[str, bytes], at: int, cut: int, put: bytes
) -> None:
    name, seed = start
    at %= len(seed) + 1
    targets.TARGETS[name](seed[:at] + put + seed[at + cut :])


@pytest.mark.parametrize(("name", "seed"), NEAR)
def test_valid_input_is_accepted(name: str, seed: bytes) -> None:
    targets.TARGETS[name](seed)
