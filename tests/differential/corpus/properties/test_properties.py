import datetime
import enum
import pathlib

import pytest


@pytest.fixture
def recording(record_property):
    record_property("fixture", "set-up")
    yield
    record_property("fixture", "teardown")


@pytest.fixture(scope="session", autouse=True)
def of_suite(record_testsuite_property):
    record_testsuite_property("from a session fixture", 1)


def test_plain(record_property):
    record_property("text", "ü <&> \"quoted\"")
    record_property("number", 3)
    record_property("float", 0.5)
    record_property("none", None)
    record_property("twice", 1)
    record_property("twice", 2)


def test_from_fixture(recording, record_property):
    record_property("call", True)


def test_failing(record_property):
    record_property("before", "the failure")
    assert 0


def test_xml_attribute(record_xml_attribute):
    record_xml_attribute("assertions", "REQ-1")
    record_xml_attribute("custom", 7)


def test_suite(record_testsuite_property):
    record_testsuite_property("ARCH", "PPC")
    record_testsuite_property("number", 7)


def test_user_properties(request):
    request.node.user_properties.append(("by hand", "x"))


def test_tuple_and_list(record_property):
    record_property("list", [1, 2])
    record_property("tuple", (1, 2))
    record_property("dict", {"a": (1, None)})


class Level(enum.IntEnum):
    LOW = 1


def test_objects(record_property):
    record_property("path", pathlib.PurePath("/a/b"))
    record_property("date", datetime.date(2026, 1, 2))
    record_property("enum", Level.LOW)
    record_property("set", {1})


def test_output(capsys):
    print("captured by capsys")
    assert capsys.readouterr().out == "captured by capsys\n"
    print("\x00\x1b control characters \ud800")
