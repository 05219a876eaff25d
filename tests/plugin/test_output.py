"""What tests print, log and warn shows as in plain pytest, also what fixtures do that are set up in the parent."""

from __future__ import annotations

import re

import pytest

from .comparing import comparable
from .conftest import Both

pytestmark = pytest.mark.needs("user namespace")

SUITE = """
    import logging, os, pytest, subprocess, sys, warnings

    log = logging.getLogger("the.logger")

    @pytest.fixture(scope="module")
    def shared():
        log.warning("shared comes up")
        print("shared comes up")
        warnings.warn("shared comes up")
        yield
        log.warning("shared goes down")
        print("shared goes down")
        warnings.warn("shared goes down")

    @pytest.fixture
    def own():
        log.info("own comes up")
        yield
        log.info("own goes down")
        print("own goes down")

    def test_pass(shared, own):
        log.info("in test_pass")
        print("in test_pass")
        warnings.warn("in test_pass")

    def test_streams(own):
        print("to stdout"); print("to stderr", file=sys.stderr)
        subprocess.run("echo from a child process; echo and its stderr >&2", shell=True)
        os.write(1, b"to descriptor 1\\n")
        assert 0

    def test_caplog(caplog, shared):
        with caplog.at_level(logging.DEBUG):
            log.debug("detail")
        assert caplog.messages == ["detail"]
        assert 0

    def test_capsys(capsys):
        print("seen")
        assert capsys.readouterr().out == "seen\\n"
        with capsys.disabled(): print("past capture")

    def test_capfd(capfd):
        os.write(1, b"seen")
        assert capfd.readouterr().out == "seen"

    def test_chain():
        left = {"a": [1, 2, 3]}
        try:
            assert left == {"a": [1, 2, 4]}
        except AssertionError as error:
            raise ValueError("outer") from error

    @pytest.mark.filterwarnings("error")
    def test_warning_is_error(): warnings.warn("made an error")

    @pytest.mark.filterwarnings("ignore")
    def test_warning_is_ignored(): warnings.warn("ignored")

    def test_warns():
        with pytest.warns(UserWarning, match="expected"): warnings.warn("expected")

    def test_last(shared): assert 0
"""

OPTIONS = [
    [],
    ["-v", "-ra"],
    ["-rA", "--log-level=INFO"],
    ["-s"],
    ["--capture=sys"],
    ["--capture=no", "-v"],
    ["--capture=tee-sys"],
    ["--tb=short"],
    ["--tb=line", "-q"],
    ["--tb=native"],
    ["--tb=no"],
    ["-l"],
    ["--color=yes", "-v"],
    ["--show-capture=log"],
    ["-W", "error::DeprecationWarning", "-x"],
    ["--maxfail=2", "-vv"],
    ["-p", "no:logging"],
    ["-p", "no:warnings"],
    ["--durations=2", "--durations-min=100"],
]


SAID = re.compile(
    r"(?:shared|own) (?:comes up|goes down)|in test_pass|to std\w+|to descriptor 1|past capture|from a child process"
)


@pytest.mark.parametrize("args", OPTIONS, ids=" ".join)
def test_output_is_the_same(both: Both, args: list[str]) -> None:
    plain, isolated = both(SUITE, "--isolate-top=0", *args)
    assert isolated.result.ret == plain.result.ret
    expected, found = comparable(plain.out), comparable(isolated.out)
    if {"-s", "--capture=no", "--capture=tee-sys"} & {*args}:
        # The letter of a result comes when the test is over, not before its teardown: in other places.
        assert SAID.findall(found) == SAID.findall(expected) != []
        expected, found = (out.partition(" FAILURES ")[2] for out in (expected, found))
    assert found == expected


def test_without_a_terminal_reporter(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=SUITE)
    results = [
        pytester.runpytest_subprocess("-p", "no:terminal", mode)
        for mode in ("--isolate-off", "--isolate-all")
    ]
    assert results[0].ret == results[1].ret == pytest.ExitCode.TESTS_FAILED
    assert results[0].stdout.str() == results[1].stdout.str()


def test_log_file(both: Both, pytester: pytest.Pytester) -> None:
    logs = []
    for at in (0, 1):
        both(SUITE, "--log-file=out.log", "--log-file-level=INFO")[at]
        logs.append((pytester.path / "out.log").read_text())
    assert "shared goes down" in logs[1]
    assert logs[0] == logs[1]


def test_live_log_lines_come_in_order(both: Both) -> None:
    plain, isolated = both(SUITE, "--log-cli-level=INFO")
    wanted = re.compile(r"^(?:INFO|WARNING).*|live log \w+", re.MULTILINE)
    assert wanted.findall(isolated.out) == wanted.findall(plain.out)
    assert "shared goes down" in isolated.out
