"""Failures that are long to tell."""

import contextlib
import dataclasses
import sys

import pytest


def test_introspection():
    left = {"a": 1, "b": [1, 2, 3], "c": {"d": "e"}}
    right = {"a": 1, "b": [1, 2, 4], "c": {"d": "f"}}
    assert left == right


def test_strings():
    assert "first\nsecond\nthird" == "first\n2nd\nthird", "with a message"


def test_sets():
    assert {1, 2, 3} == {2, 3, 4}


@dataclasses.dataclass
class Point:
    x: int
    y: int


def test_dataclass():
    assert Point(1, 2) == Point(1, 3)


def helper(value):
    __tracebackhide__ = True
    assert value, "hidden helper"


def test_hidden():
    helper(0)


def test_chain():
    try:
        try:
            raise ValueError("first")
        except ValueError as error:
            raise TypeError("second") from error
    except TypeError:
        raise RuntimeError("third")


def test_recursion():
    def down(n):
        return down(n + 1)

    down(0)


def test_system_exit():
    sys.exit("leaving")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="since 3.11")
def test_group():
    raise ExceptionGroup("several", [ValueError(1), ExceptionGroup("inner", [KeyError("x")])])  # noqa: F821


@pytest.mark.skipif(sys.version_info < (3, 11), reason="since 3.11")
def test_note():
    error = ValueError("noted")
    error.add_note("a note")
    raise error


def test_raises_nothing():
    with pytest.raises(ValueError, match="x"):
        pass


def test_raises_other():
    with pytest.raises(ValueError, match="expected"):
        raise ValueError("other")


class Odd(Exception):
    def __str__(self):
        raise RuntimeError("no str")

    __repr__ = __str__


def test_odd():
    raise Odd


def test_surrogate():
    raise ValueError("\udcff \x00")


def test_suppressed():
    with contextlib.suppress(ValueError):
        raise ValueError
    raise KeyError("k") from None


def test_base_exception():
    class Own(BaseException):
        pass

    raise Own("base")


def test_generator_exit():
    raise GeneratorExit


def test_lazily_imported():
    import fractions
    import json.tool

    assert fractions.Fraction(1, 3) == json.tool
