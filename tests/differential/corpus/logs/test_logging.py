import logging

import pytest

log = logging.getLogger("differential")


@pytest.fixture
def logging_fixture():
    log.warning("set-up")
    yield
    log.warning("teardown")


@pytest.fixture(scope="module", autouse=True)
def module_fixture():
    log.warning("module set-up")
    yield
    log.warning("module teardown")


def test_failing(logging_fixture):
    log.info("below the level")
    log.warning("in the test %s", {"a": 1})
    assert 0


def test_passing(logging_fixture):
    log.error("error")


def test_caplog(caplog):
    with caplog.at_level(logging.DEBUG):
        log.debug("debug")
    assert caplog.record_tuples == [("differential", logging.DEBUG, "debug")]
    assert [r.message for r in caplog.get_records("setup")] == []
    caplog.clear()
    caplog.set_level("INFO", logger="differential")
    log.info("kept")
    assert caplog.messages == ["kept"]


def test_level_is_restored():
    assert log.level == logging.NOTSET


def test_exception():
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("caught")
    assert 0
