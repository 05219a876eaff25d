"""Plugins that give fixtures: pytest-mock, pytest-subprocess, pytest-django, syrupy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ..comparing import comparable
from ..conftest import Both, Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]


@pytest.mark.knows("pytest_mock")
def test_mock(both: Both) -> None:
    pytest.importorskip("pytest_mock")
    plain, isolated = both(
        """
        import os, pytest

        @pytest.fixture(scope="module")
        def patched(module_mocker): module_mocker.patch("os.getppid", return_value=-5)

        def test_patch(mocker):
            getcwd = mocker.patch("os.getcwd", return_value="nowhere")
            assert os.getcwd() == "nowhere"
            getcwd.assert_called_once()

        def test_undone(): assert os.getcwd() != "nowhere"
        def test_module(patched): assert os.getppid() == -5

        def test_spy(mocker):
            spy = mocker.spy(os.path, "join")
            os.path.join("a", "b")
            spy.assert_called_once_with("a", "c")
        """
    )
    assert plain.outcomes == isolated.outcomes == {"passed": 3, "failed": 1}
    assert comparable(plain.out) == comparable(isolated.out)


def test_subprocess(both: Both) -> None:
    pytest.importorskip("pytest_subprocess")
    plain, isolated = both(
        """
        import subprocess

        def test_faked(fp):
            fp.register(["git", "status"], stdout="clean")
            assert subprocess.check_output(["git", "status"]) == b"clean"

        def test_unregistered(fp): subprocess.run(["git", "log"])

        def test_real(fp):
            fp.allow_unregistered(True)
            assert subprocess.check_output(["echo", "hi"]) == b"hi\\n"
        """,
        *("-p", "pytest-subprocess"),
    )
    assert plain.outcomes == isolated.outcomes == {"passed": 2, "failed": 1}


DJANGO = """
    import pytest

    pytestmark = pytest.mark.django_db

    @pytest.fixture
    def user(django_user_model): return django_user_model.objects.create(username="user")

    def test_creates(user, django_user_model): assert django_user_model.objects.count() == 1
    def test_rolled_back(django_user_model): assert django_user_model.objects.count() == 0

    @pytest.mark.django_db(transaction=True)
    def test_transaction(user, django_user_model): assert django_user_model.objects.count() == 1

    def test_queries(django_assert_num_queries, django_user_model):
        with django_assert_num_queries(2):
            list(django_user_model.objects.all())

    def test_client(client): assert client.get("/nowhere").status_code == 404

    def test_mail(mailoutbox):
        from django.core import mail
        mail.send_mail("subject", "text", "from@example.com", ["to@example.com"])
        assert len(mailoutbox) == 1
"""


@pytest.mark.parametrize("database", [None, "test.sqlite3"], ids=["in-memory", "file"])
def test_django(both: Both, pytester: pytest.Pytester, database: str | None) -> None:
    pytest.importorskip("pytest_django")
    pytester.makepyfile(
        project_settings=f"""
            SECRET_KEY = "secret"
            INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes"]
            ROOT_URLCONF = "project_urls"
            DATABASES = {{"default": {{
                "ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3", "TEST": {{"NAME": {database!r}}},
            }}}}
        """,
        project_urls="urlpatterns = []",
    )
    plain, isolated = both(DJANGO, "-p", "django", "--ds=project_settings")
    assert plain.outcomes == isolated.outcomes == {"passed": 5, "failed": 1}


SNAPSHOTS = """
    def test_a(snapshot): assert {"a": 1} == snapshot
    def test_b(snapshot): assert [1, 2] == snapshot
"""


@pytest.fixture
def snapshots(pytester: pytest.Pytester) -> Callable[[], list[str]]:
    """The stored snapshots' names."""
    pytest.importorskip("syrupy")

    def names() -> list[str]:
        files = pytester.path.rglob("__snapshots__/*.ambr")
        lines = [line for file in files for line in file.read_text().splitlines()]
        return [line.removeprefix("# name: ") for line in lines if line.startswith("# name: ")]

    return names


def test_snapshots_are_counted_as_used(both: Both, run: Runner, snapshots: Callable[[], list[str]]) -> None:
    assert run(SNAPSHOTS, "-p", "syrupy", "--isolate-off", "--snapshot-update").outcomes == {"passed": 2}
    for args in [], ["-k", "test_a"], ["-n2"]:
        plain, isolated = both(SNAPSHOTS, "-p", "syrupy", *args)
        assert isolated.result.ret == plain.result.ret == 0
        assert comparable(isolated.out) == comparable(plain.out) or args == ["-n2"]
        assert ("2 snapshots passed" in isolated.out) == ("2 snapshots passed" in plain.out)
    changed = SNAPSHOTS.replace("[1, 2]", "[1, 3]")
    plain, isolated = both(changed, "-p", "syrupy")
    assert plain.outcomes == isolated.outcomes == {"passed": 1, "failed": 1}
    unused = SNAPSHOTS.replace("def test_b", "def no_test_b")
    plain, isolated = both(unused, "-p", "syrupy")
    assert plain.result.ret == isolated.result.ret == 1
    assert "1 snapshot unused" in isolated.out
    assert snapshots() == ["test_a", "test_b"]


def test_snapshot_update_reaches_a_bound_source_tree(
    run: Runner, pytester: pytest.Pytester, snapshots: Callable[[], list[str]]
) -> None:
    bind = f"--isolate-binds={pytester.path}:{pytester.path}"
    inner = run(SNAPSHOTS, "-p", "syrupy", "--snapshot-update", bind)
    assert inner.outcomes == {"passed": 2}
    assert "2 snapshots generated" in inner.out
    assert snapshots() == ["test_a", "test_b"]
    changed = SNAPSHOTS.replace("[1, 2]", "[1, 3]").replace("def test_a", "def no_test_a")
    inner = run(changed, "-p", "syrupy", "--snapshot-update", bind)
    assert "1 snapshot updated" in inner.out
    assert snapshots() == ["test_b"]


def test_snapshot_update_without_a_bind_says_what_to_add(
    run: Runner, pytester: pytest.Pytester, snapshots: Callable[[], list[str]]
) -> None:
    inner = run(SNAPSHOTS, "-p", "syrupy", "--snapshot-update")
    assert f"--isolate-binds={pytester.path}:{pytester.path}" in inner.out
    assert snapshots() == []
