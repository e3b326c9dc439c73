"""The choice among algorithms."""
from infold.plan.choice import Way, choose

WAYS = [Way("slow", 5.0, lambda: None), Way("fast", 1.0, lambda: None), Way("as fast", 1.0, lambda: None)]


def test_least_estimate_first_of_equals():
    assert choose("n", WAYS, {}).name == "fast"


def test_a_named_way_wins_for_its_node_only():
    assert choose("n", WAYS, {"n": "slow"}).name == "slow"
    assert choose("m", WAYS, {"n": "slow"}).name == "fast"


def test_every_node_unless_named():
    assert choose("n", WAYS, {"*": "slow", "m": "fast"}).name == "slow"
    assert choose("m", WAYS, {"*": "slow", "m": "as fast"}).name == "as fast"


def test_what_is_impossible_here_is_ignored():
    assert choose("n", WAYS, {"n": "winograd"}).name == "fast"
