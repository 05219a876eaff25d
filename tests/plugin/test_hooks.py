"""The hooks for other plugins, used from another plugin; and plugins that must not be loaded with ours."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Run

Runner = Callable[..., Run]


@pytest.mark.needs("user namespace")
def test_hooks_of_a_second_plugin(run: Runner, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        second="""
        import dataclasses

        def pytest_isolate_modify_spec(item, spec):
            if "boxed" in item.name:
                return dataclasses.replace(spec, hostname="second")

        def pytest_isolate_sandbox_ready(item, sandbox):
            print(f"READY {item.name} {sandbox.spec.hostname} {sorted(sandbox.enforced.namespaces)}")

        def pytest_isolate_finished(item, outcome, usage):
            print(f"FINISHED {item.name} {type(outcome).__name__} {usage.wall_s > 0}")
        """
    )
    inner = run(
        """
        import os, socket

        def test_boxed(): assert socket.gethostname() == "second"
        def test_other(): assert socket.gethostname() == "isolated"
        def test_dies(): os._exit(3)
        """,
        "-p",
        "second",
        "-s",
    )
    assert inner.outcomes == {"passed": 2, "failed": 1}
    for line in (
        "READY test_boxed second *'cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts'*",
        "FINISHED test_boxed Completed True",
        "READY test_other isolated *",
        "FINISHED test_dies Exited True",
    ):
        inner.result.stdout.fnmatch_lines([f"*{line}*"])


@pytest.mark.parametrize("name", ["isolated", "pytest_isolate"])
def test_rivals_are_refused_by_name(pytester: pytest.Pytester, name: str) -> None:
    pytester.makeconftest(
        f"def pytest_configure(config): pass\n\n"
        f"def pytest_addoption(parser, pluginmanager):\n    pluginmanager.register(object(), {name!r})\n"
    )
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*pip uninstall pytest-{'isolated' if name == 'isolated' else 'isolate'}*"])


def test_unused_costs_nothing(pytester: pytest.Pytester) -> None:
    """Neither pyroute2, nor the extension, nor the layers below: only what options need."""
    pytester.makeconftest(
        """
        import sys

        def pytest_unconfigure():
            loaded = sorted(m for m in sys.modules if m.startswith(("pytest_isolate", "pyroute2", "cffi", "_cffi")))
            print("LOADED", *loaded)
        """
    )
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess("-s")
    (line,) = (line for line in result.outlines if line.startswith("LOADED"))
    assert set(line.split()[1:]) <= {
        "pytest_isolate",
        *(
            f"pytest_isolate.{name}"
            for name in [
                "declared",
                "errors",
                "hookspecs",
                "lifecycle",
                "marker",
                "options",
                "plugin",
                "units",
                "values",
            ]
        ),
        "pytest_isolate.runner",  # two names, nothing else
        "pytest_isolate.settings",
    }


@pytest.mark.needs("user namespace")
def test_off_and_opt_out(run: Runner) -> None:
    source = """
        import os, pytest

        @pytest.mark.not_isolated(reason="needs the host")
        def test_out(): assert os.getpid() != 2

        def test_in(): assert os.getpid() == 2

        @pytest.mark.not_isolated
        def test_no_reason(): pass
    """
    inner = run(source)
    assert inner.outcomes == {"passed": 2, "errors": 1}
    assert "needs the host" in inner.out
    assert run("import os\ndef test_it(): assert os.getpid() != 2", "--isolate-off").outcomes == {"passed": 1}
