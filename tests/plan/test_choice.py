"""The choice among algorithms."""
from math import inf

from infold.plan.choice import Way, choose, offered

WAYS = [Way("slow", 5.0, lambda: None), Way("fast", 1.0, lambda: None), Way("as fast", 1.0, lambda: None)]


def test_least_estimate_first_of_equals():
    assert choose("n", WAYS, {}, {}).name == "fast"


def test_a_named_way_wins_for_its_node_only():
    assert choose("n", WAYS, {"n": "slow"}, {}).name == "slow"
    assert choose("m", WAYS, {"n": "slow"}, {}).name == "fast"


def test_every_node_unless_named():
    assert choose("n", WAYS, {"*": "slow", "m": "fast"}, {}).name == "slow"
    assert choose("m", WAYS, {"*": "slow", "m": "as fast"}, {}).name == "as fast"


def test_what_is_impossible_here_is_ignored():
    assert choose("n", WAYS, {"n": "winograd"}, {}).name == "fast"


def test_what_was_measured_counts_unless_an_algorithm_is_demanded():
    assert choose("n", WAYS, {}, {"n": "as fast"}).name == "as fast"
    assert choose("m", WAYS, {}, {"n": "as fast"}).name == "fast"
    assert choose("n", WAYS, {"*": "slow"}, {"n": "as fast"}).name == "slow"
    assert choose("n", WAYS, {"n": "impossible"}, {"n": "as fast"}).name == "as fast"


def test_only_what_is_offered_can_have_been_measured():
    ways = [*WAYS, Way("forbidden", inf, lambda: None)]
    assert offered(ways) == ("fast", "as fast") and offered(ways[-1:]) == ()
    for name in ("slow", "forbidden", "unknown"):
        assert choose("n", ways, {}, {"n": name}).name == "fast"
    assert choose("n", ways, {"n": "forbidden"}, {}).name == "forbidden"
