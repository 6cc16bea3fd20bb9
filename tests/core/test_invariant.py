"""The invariant says what broke and with which facts."""

import pytest

from control_plane.core.invariant import InvariantBroken, invariant


def test_nothing_happens_while_it_holds() -> None:
    invariant(True, "two live leases for one model", model="a")


def test_a_broken_one_names_its_facts() -> None:
    with pytest.raises(InvariantBroken, match=r"two live leases \(model='a', leases=2\)") as caught:
        invariant(False, "two live leases", model="a", leases=2)
    assert caught.value.facts == {"model": "a", "leases": 2}


def test_the_facts_may_be_missing() -> None:
    with pytest.raises(InvariantBroken, match=r"^never$"):
        invariant(False, "never")
