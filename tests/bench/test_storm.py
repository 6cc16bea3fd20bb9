"""A promotion with 400 models downstream that all drift makes no storm."""

from bench.storm import DOWNSTREAM, storm


def test_one_promotion_makes_no_storm() -> None:
    found = storm()
    assert found.running_max == 50
    assert found.unharmed_retrained == 0
    assert found.retrained == DOWNSTREAM * 3 // 4
    urgent = found.tiers.count(1)
    assert set(found.tiers[:urgent]) == {1}
