"""A storm, small: what is benched with 400 models is true of 64 in every run of the tests."""

from bench.storm import START, storm, unharmed_retrained


def test_a_promotion_retrains_what_it_harmed_a_few_at_a_time_and_nothing_else() -> None:
    found = storm(models=64, running_max=5)
    assert found.most == 5
    assert unharmed_retrained(found) == 0
    assert sum(found.ran.values()) == 48
    assert found.overtaken == 0
    assert len({retrain.group for retrain in found.state.retrains.values()}) == 1
    assert all(retrain.group.startswith("cascade_") for retrain in found.state.retrains.values())
    assert min(retrain.requested_at for retrain in found.state.retrains.values()) > START
