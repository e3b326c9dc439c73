"""The fold report counts what its items say, and its JSON form has the keys that scripts rely on."""
from __future__ import annotations

import json

from infold.report.fold import FoldItem, FoldReport


def test_counts_and_json():
    report = FoldReport([FoldItem("bn1", "folded", into="conv1"), FoldItem("bn2", "fused", into="conv2"),
                         FoldItem("bn3", "kept", reason="it follows Relu 'r'")], remaining=2)
    assert (report.batchnorms, report.folded, report.fused, report.remaining) == (3, 1, 1, 2)
    assert json.loads(json.dumps(report.to_dict())) == {
        "batchnorms": 3, "folded": 1, "fused": 1, "remaining": 2,
        "items": [{"name": "bn1", "verdict": "folded", "into": "conv1", "reason": None},
                  {"name": "bn2", "verdict": "fused", "into": "conv2", "reason": None},
                  {"name": "bn3", "verdict": "kept", "into": None, "reason": "it follows Relu 'r'"}]}


def test_an_empty_report():
    assert FoldReport().to_dict() == {"batchnorms": 0, "folded": 0, "fused": 0, "remaining": 0, "items": []}
