"""Formulas of one tensor in a normal form, and formulas with blanks that are matched against them.

`+ - * / **` build both, so that spelling does not count: x / sqrt(v + e), x * reciprocal(sqrt(v + e)) and
pow(v + e, -0.5) * x are the same product x^1 (v + e)^-0.5. What is left to the matcher is the order of terms and
factors, and the blanks: `Number` for a constant that is a number, `Weight` for one that may also be an array.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_TOLERANCE = 1e-3  # of a constant: float16 models round theirs to 11 bits

Atom = tuple[int, int, int | str]  # part of an axis of the tensor: axis, divisor, extent of (index // divisor) % extent


class Expr:
    """A formula. Arithmetic keeps it in normal form."""

    def __add__(self, other: Expr | float) -> Expr:
        a, b = _sum(self), _sum(lift(other))
        return _make_sum(a.constant + b.constant, _joined(a.terms, b.terms))

    def __mul__(self, other: Expr | float) -> Expr:
        a, b = _product(self), _product(lift(other))
        return _make_product(a.scale * b.scale, _joined(a.factors, b.factors))

    def __pow__(self, exponent: float) -> Expr:
        return _power(self, float(exponent))

    def __neg__(self) -> Expr:
        return self * -1.0

    def __sub__(self, other: Expr | float) -> Expr:
        return self + -lift(other)

    def __truediv__(self, other: Expr | float) -> Expr:
        return self * lift(other) ** -1.0

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: float) -> Expr:
        return -self + other


def _formula(cls: type) -> type:
    """A frozen dataclass that computes its hash once: formulas are nested as deep as graphs."""
    cls = dataclass(frozen=True)(cls)
    compute = cls.__hash__

    def __hash__(self) -> int:
        if "hash" not in self.__dict__:
            self.__dict__["hash"] = compute(self)
        return self.__dict__["hash"]

    cls.__hash__ = __hash__
    return cls


@dataclass(frozen=True)
class Input(Expr):
    """The tensor itself."""


@dataclass(frozen=True)
class Number(Expr):
    """Blank for a number among the terms of a sum."""

    name: str


@dataclass(frozen=True)
class Weight(Expr):
    """Blank for a constant: a number, an array, or both multiplied."""

    name: str


@dataclass(frozen=True, eq=False)
class Array(Expr):
    """A constant that varies along some atoms, one for each dimension of `data`."""

    data: np.ndarray
    atoms: tuple[Atom, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and self.atoms == other.atoms and np.array_equal(self.data, other.data)

    def __hash__(self) -> int:
        return hash(self.atoms)


@_formula
class Mean(Expr):
    """The mean over some atoms of the tensor's axes; in a pattern, a name for them."""

    of: Expr
    over: frozenset[Atom] | str


@_formula
class Call(Expr):
    """A function by its operator's name; the arguments of Max commute."""

    name: str
    arguments: tuple[Expr, ...]
    parameters: tuple[float, ...] = ()


@_formula
class Sum(Expr):
    """constant + coefficient * term + ...; a number is a sum without terms."""

    constant: float
    terms: frozenset[tuple[Expr, float]]


@_formula
class Product(Expr):
    """scale * factor^exponent * ..."""

    scale: float
    factors: frozenset[tuple[Expr, float]]


X = Input()
Bindings = Mapping[str, object]


class Constant(NamedTuple):
    """What a `Weight` stands for: number * array, or the number alone."""

    number: float
    array: Array | None


def lift(value: Expr | float) -> Expr:
    """A number as a formula."""
    return value if isinstance(value, Expr) else Sum(float(value), frozenset())


def number_of(expr: Expr) -> float | None:
    """The number that a formula is, if it is one."""
    return expr.constant if isinstance(expr, Sum) and not expr.terms else None


def mean(of: Expr, over: frozenset[Atom]) -> Expr:
    """The mean; a factor is taken out of it."""
    product = _product(of)
    return Mean(_make_product(1.0, dict(product.factors)), over) * product.scale


def match(pattern: Expr, expr: Expr, bindings: Bindings | None = None) -> Iterator[dict[str, object]]:
    """Every way to fill the pattern's blanks so that it becomes the formula.

    `Number` binds a float, `Weight` a `Constant`, a named `Mean` the set of atoms. One name is one value.
    """
    bound = dict(bindings or {})
    match pattern:
        case Input():
            if expr == pattern:
                yield bound
        case Mean(of, name):
            if isinstance(expr, Mean) and bound.get(name, expr.over) == expr.over:
                yield from match_(of, expr.of, {**bound, name: expr.over})
        case Call(name, arguments, parameters):
            if isinstance(expr, Call) and name == expr.name and len(parameters) == len(expr.parameters) \
                    and all(map(close, expr.parameters, parameters)):
                yield from _match_arguments(arguments, expr.arguments, bound, commute=name == "Max")
        case Sum(constant, terms):
            yield from _match_sum(constant, terms, _sum(expr), bound)
        case Product(scale, factors):
            yield from _match_product(scale, factors, _product(expr), bound)
        case Weight(name):
            yield from _bind_weight(name, _sum(expr).constant, dict(_sum(expr).terms), bound)


def parts(expr: Expr) -> tuple[str, ...]:
    """How often the formula has the tensor in it, a mean and each function, sorted: the same of a pattern and what it matches,
    since blanks stand for constants alone."""
    found, waiting = [], [expr]
    while waiting:
        match waiting.pop():
            case Input():
                found.append("x")
            case Mean(of):
                found.append("mean")
                waiting.append(of)
            case Call(name, arguments):
                found.append(name)
                waiting += arguments
            case Sum(_, items) | Product(_, items):
                waiting += [item for item, _ in items]
    return tuple(sorted(found))


match_ = match  # inside the function, `match` begins a statement


def close(number: float, target: float) -> bool:
    """Whether a constant of a model is meant to be `target`."""
    return math.isclose(number, target, rel_tol=_TOLERANCE)


def _match_arguments(patterns: tuple[Expr, ...], arguments: tuple[Expr, ...], bound: dict,
                     commute: bool) -> Iterator[dict]:
    if len(patterns) != len(arguments):
        return
    if not patterns:
        yield bound
        return
    for index in range(len(arguments) if commute else 1):
        rest = arguments[:index] + arguments[index + 1:]
        for found in match_(patterns[0], arguments[index], bound):
            yield from _match_arguments(patterns[1:], rest, found, commute)


def _match_sum(constant: float, terms: frozenset, expr: Sum, bound: dict) -> Iterator[dict]:
    blanks = [term for term, _ in terms if isinstance(term, (Number, Weight))]
    fixed = [item for item in terms if item[0] not in blanks]
    for found, rest in _assign(fixed, list(expr.terms), bound, _match_term):
        match blanks:
            case []:
                if not rest and (close(expr.constant, constant) or expr.constant == constant):
                    yield found
            case [Number(name)]:
                if not rest and found.get(name, expr.constant) == expr.constant:
                    yield {**found, name: expr.constant}
            case [Weight(name)]:
                yield from _bind_weight(name, expr.constant, dict(rest), found)


def _match_term(pattern: tuple[Expr, float], term: tuple[Expr, float], bound: dict) -> Iterator[dict]:
    return match_(pattern[0], term[0] * (term[1] / pattern[1]), bound)


def _match_product(scale: float, factors: frozenset, expr: Product, bound: dict) -> Iterator[dict]:
    blanks = [factor for factor, _ in factors if isinstance(factor, Weight)]
    fixed = [item for item in factors if item[0] not in blanks]
    for found, rest in _assign(fixed, list(expr.factors), bound, _match_factor):
        if blanks:
            yield from _bind_weight(blanks[0].name, 0.0, {_make_product(1.0, dict(rest)): expr.scale / scale}, found)
        elif not rest and close(expr.scale, scale):
            yield found


def _match_factor(pattern: tuple[Expr, float], factor: tuple[Expr, float], bound: dict) -> Iterator[dict]:
    if math.isclose(pattern[1], factor[1]):
        yield from match_(pattern[0], factor[0], bound)


def _assign(patterns: list, items: list, bound: dict, fits) -> Iterator[tuple[dict, list]]:
    """Every way to give each pattern an item of its own, with the items that are left."""
    if not patterns:
        yield bound, items
        return
    for index, item in enumerate(items):
        for found in fits(patterns[0], item, bound):
            yield from _assign(patterns[1:], items[:index] + items[index + 1:], found, fits)


def _bind_weight(name: str, constant: float, terms: dict[Expr, float], bound: dict) -> Iterator[dict]:
    """A sum as a constant: a number, or a multiple of one array."""
    total = _make_sum(constant, terms)
    product = _product(total)
    if number_of(total) is not None:
        value = Constant(number_of(total), None)
    elif len(product.factors) == 1 and isinstance(array := next(iter(product.factors))[0], Array) \
            and next(iter(product.factors))[1] == 1:
        value = Constant(product.scale, array)
    else:
        return
    if bound.get(name, value) == value:
        yield {**bound, name: value}


# Normal form

def _sum(expr: Expr) -> Sum:
    match expr:
        case Sum():
            return expr
        case Product(scale, factors):
            return Sum(0.0, frozenset({(_make_product(1.0, dict(factors)), scale)}))
        case _:
            return Sum(0.0, frozenset({(expr, 1.0)}))


def _product(expr: Expr) -> Product:
    match expr:
        case Product():
            return expr
        case Sum(constant, terms) if not terms:
            return Product(constant, frozenset())
        case _:
            return Product(1.0, frozenset({(expr, 1.0)}))


def _joined(first: frozenset, second: frozenset) -> dict[Expr, float]:
    """Coefficients, or exponents, of equal formulas add up."""
    total = dict(first)
    for expr, number in second:
        total[expr] = total.get(expr, 0.0) + number
    return total


def _make_sum(constant: float, terms: dict[Expr, float]) -> Expr:
    terms = {term: coefficient for term, coefficient in terms.items() if coefficient}
    if len(terms) == 1 and not constant:
        ((term, coefficient),) = terms.items()
        return term * coefficient
    return Sum(constant, frozenset(terms.items()))


def _make_product(scale: float, factors: dict[Expr, float]) -> Expr:
    factors = {factor: exponent for factor, exponent in factors.items() if exponent}
    for array in [factor for factor, exponent in factors.items() if isinstance(factor, Array) and exponent == -1]:
        if array.data.all():
            del factors[array]
            factors[Array(1 / array.data.astype(np.float64), array.atoms)] = 1.0
    if not factors or not scale:
        return lift(scale)
    if scale == 1 and list(factors.values()) == [1]:
        return next(iter(factors))
    return Product(scale, frozenset(factors.items()))


def _power(expr: Expr, exponent: float) -> Expr:
    """expr^exponent where that is a formula of real numbers at all; the powers of a product only where they are exact."""
    number = number_of(expr)
    if number is not None and (number > 0 or (number and exponent.is_integer())):
        return lift(number ** exponent)
    if isinstance(expr, Sum) and len(expr.terms) == 1:  # (k t + c)^p = k^p (t + c/k)^p
        ((term, coefficient),) = expr.terms
        if coefficient > 0 and coefficient != 1:
            return (term + expr.constant / coefficient) ** exponent * coefficient ** exponent
    product = _product(expr)
    if exponent.is_integer() and product.scale:
        return _make_product(product.scale ** exponent, {f: e * exponent for f, e in product.factors})
    if product.scale > 0 and all(abs(e) == 1 or not e.is_integer() for _, e in product.factors) and len(product.factors) == 1:
        return _make_product(product.scale ** exponent, {f: e * exponent for f, e in product.factors})
    return Product(1.0, frozenset({(expr, exponent)}))
