"""The short form of ``scripts/invariants``."""

from scripts.reliability.invariants import run


def test_cores_and_models_agree_over_a_synthetic_market() -> None:
    counts = run(20_000, seed=7)
    assert counts["book messages"] > 10_000
    assert counts["windows"] > 10
    assert counts["detected"] > 10
