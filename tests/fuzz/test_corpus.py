"""The first mutants of every harness, always the same: each is refused in words, or loads, runs and agrees."""

from __future__ import annotations

import pytest
from campaign import CLEAN, UNCLEAN, Campaign, Harness, harnesses

MUTANTS = {"onnx-bytes": 6000, "onnx-fields": 1500, "prototxt": 800, "caffemodel": 1000, "t7": 2000, "pt2": 150, "infold": 3000,
           "graphs": 1000}
KNOWN = harnesses()


def test_every_harness_has_a_corpus():
    assert MUTANTS.keys() == KNOWN.keys()


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.timeout(600)
def test_corpus(name: str):
    KNOWN[name].prepare()
    campaign = Campaign(KNOWN[name])
    assert campaign.run(0, 500, MUTANTS[name]) == MUTANTS[name]
    assert not campaign.unclean
    counts = campaign.counts
    assert sum(counts.values()) == MUTANTS[name]
    assert counts["refused"] and counts["refused"] < MUTANTS[name], "mutants that are all refused, or none, show nothing"
    assert name != "graphs" or counts["ran equal"] > 200


class Bad(Harness):
    """Goes wrong in every way at chosen numbers."""

    name = "bad"

    def trial(self, rng, second_opinion):
        import ctypes
        import os

        from infold.errors import Error

        kind = self.index
        if kind == 0:
            raise Error("no")
        if kind == 1:
            raise Error
        if kind == 2:
            raise KeyError("x")
        if kind == 3:
            ctypes.string_at(0)
        if kind == 4:
            while True:
                pass
        if kind == 5:
            bytearray(1 << 36)
        if kind == 6:
            second_opinion()
            os.abort()
        return "loaded", ""

    def run(self, index, second_opinion):
        self.index = index
        return super().run(index, second_opinion)


def test_every_way_of_going_wrong_is_counted():
    campaign = Campaign(Bad())
    assert campaign.run(0, 100, 9) == 9
    counts = {outcome: n for outcome, n in campaign.counts.items() if n}
    assert counts == {"refused": 1, "loaded": 2, "untyped error": 2, "out of memory": 1, "crash": 1, "hang": 1,
                      "second opinion failed": 1}
    assert [u["mutant"] for u in campaign.unclean] == ["bad:1", "bad:2", "bad:3", "bad:4", "bad:5"]
    assert {u["outcome"] for u in campaign.unclean} <= set(UNCLEAN) and not set(CLEAN) & set(UNCLEAN)
