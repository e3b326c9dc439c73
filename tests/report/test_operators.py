"""docs/operators.md says what the code does."""

from __future__ import annotations

from pathlib import Path

import onnx

from infold.report.operators import markdown, operators

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


def rows(page: str) -> dict[str, list[str]]:
    """Types and conditions of each operator; the versions depend on the installed onnx."""
    lines = [line.split(" | ") for line in page.splitlines() if line.startswith("| ") and not line.startswith("| operator")]
    return {line[0].removeprefix("| "): line[2:] for line in lines}


def test_the_page_is_fresh():
    found, wanted = rows(PAGE.read_text()), rows(markdown())
    assert {name: found.get(name) for name in wanted} == wanted, "run: infold info --operators > docs/operators.md"
    if f"with onnx {onnx.__version__}." in PAGE.read_text():
        assert PAGE.read_text() == markdown()


def test_what_it_knows():
    table = {row.name: row for row in operators()}
    assert table["Conv"].native and table["Conv"].versions[0] == 1 and "f32" in table["Conv"].types
    assert "b8" in table["Where"].types and not table["DFT"].native and table["DFT"].conditions == ()
    assert any("reflection" in reason for reason in table["Pad"].conditions) and table["Loop"].native
    assert any("slices" in reason for reason in table["Unique"].conditions) and table["Unique"].native and not table["Unique"].types
