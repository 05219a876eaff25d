"""pytest's cache: what tests set in it, and the options that live on it. And files of ``tmp_path``, which stay."""

from __future__ import annotations

import os
import sys

import pytest

from .comparing import comparable

pytestmark = pytest.mark.needs("user namespace")
MODES = ("--isolate-off", "--isolate-all")


def test_what_a_test_sets_is_there_for_the_next_and_the_next_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_set(cache): cache.set("mine/value", {"a": [1, None]})
        def test_get(cache): assert cache.get("mine/value", None) == {"a": [1, None]}

        def test_set_and_get(cache):
            cache.set("mine/own", 1)
            assert cache.get("mine/own", None) == 1
        """
    )
    for _ in range(2):
        assert pytester.runpytest_subprocess("--isolate-all").parseoutcomes() == {"passed": 3}
        pytester.makepyfile(
            'def test_get(cache): assert cache.get("mine/value", None) == {"a": [1, None]}\n'
            'def test_own(cache): assert cache.get("mine/own", None) == 1\n'
            "def test_more(): pass\n"
        )


def test_no_cache_at_all(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess("--isolate-all", "-p", "no:cacheprovider")
    assert result.parseoutcomes() == {"passed": 1}


def test_options_that_remember_the_last_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_a(): assert 0
        def test_b(): pass
        def test_c(): assert 0
        def test_d(): pass
        """
    )
    printed = []
    for mode in MODES:
        pytester.runpytest_subprocess("--cache-clear", "--collect-only", "-q")
        runs = [["-v"], ["--lf", "-v"], ["--ff", "-v"], ["--nf", "-v"], ["--sw", "-v"], ["--sw-skip", "-v"]]
        results = [pytester.runpytest_subprocess(mode, *args) for args in runs]
        printed.append([comparable(result.stdout.str()) for result in results])
    assert printed[0] == printed[1]
    assert "2 failed" in printed[1][1]


@pytest.mark.parametrize("policy", ["all", "failed", "none"])
def test_retention_of_tmp_path(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(scope="module")
        def shared(tmp_path_factory): return tmp_path_factory.mktemp("shared")

        def test_pass(tmp_path, shared):
            (tmp_path / "a").touch()
            (shared / "b").touch()

        def test_fail(tmp_path):
            (tmp_path / "c").touch()
            assert 0
        """
    )
    left = []
    for mode in MODES:
        root = pytester.mkdir(f"temp{mode}")
        monkeypatch.setenv("PYTEST_DEBUG_TEMPROOT", str(root))
        for _ in range(3):
            options = ("-o", f"tmp_path_retention_policy={policy}", "-o", "tmp_path_retention_count=2")
            # Not as pytester does it, which names a base directory.
            pytester.run(sys.executable, "-m", "pytest", mode, *options)
        left.append(
            sorted(os.path.relpath(path, root) for path in root.rglob("*") if ".lock" not in path.name)
        )
    assert left[0] == left[1]
    assert any("test_fail0/c" in path for path in left[1]) == (policy != "none")
