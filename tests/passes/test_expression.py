"""Formulas: what they cost."""
from infold.passes.expression import Call, X


def test_a_formula_that_uses_itself_twice_at_every_level():
    """Hashing follows the sixty formulas, not the 2^60 ways through them."""
    formula = X
    for _ in range(60):
        formula = Call("Max", (formula, formula))
    assert hash(formula) == hash(formula) and len({formula, formula}) == 1
