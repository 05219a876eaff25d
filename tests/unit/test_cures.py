"""Each cure that is told is one that the options take, and what it names is what the violation was about."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_isolate.kernel.attempts import Act, Attempt
from pytest_isolate.options import OPTIONS
from pytest_isolate.runner import cures, deeds, network_watch
from pytest_isolate.runner.network_words import NETWORK, UNIX, describe
from pytest_isolate.runner.observe import descriptors, project, secrets
from pytest_isolate.sandbox.changes import Change, Deed
from pytest_isolate.sandbox.written import matcher
from pytest_isolate.spec import Spec
from pytest_isolate.violation import Kind, Violation

ROOT = "/srv/shop"
PARSERS = {option.name: option.parse for option in OPTIONS}
PATHS = (
    "/var/tmp/a.txt",
    "/var/tmp/test_w[1].log",
    "/var/tmp/what?*.log",
    '/var/tmp/a"b.txt',
    "/var/tmp/a'b\\c.txt",
    "/var/tmp/a\nb.txt",
    "/var/tmp/two  spaces",
    "/var/tmp/b\udcffc",
    "/var/tmp/é\u2028ü",
    f"{ROOT}/out/x.png",
    f"{ROOT}/  ",
    f"/var/tmp/{'long' * 200}",
    f"{os.path.expanduser('~')}/.cache/x",
    "/scratch/pytest-of-ann/pytest-12/popen-gw0/x",
)


def parsed(cure: str) -> dict[str, object]:
    """By option: what its own parser makes of it. Raises ValueError."""
    call = ast.parse(f"f({cure.removeprefix('tmp_path, or ').replace('tmp_path', '')})", mode="eval").body
    assert isinstance(call, ast.Call)
    assert not call.args
    values = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    return {name: PARSERS[name](value) for name, value in values.items()}


def of_files() -> Iterator[Violation]:
    for path in PATHS:
        for deed in Deed:
            for is_directory in (False, True):
                yield from deeds._files([Change(deed, path, is_directory)], {}, ROOT, ())
    yield from deeds._files([Change(Deed.CREATED, f"/x/{n}") for n in range(30)], {}, ROOT, ())
    yield from deeds._files([Change(Deed.CREATED, "/dev/shm/psm_0a1b2c3d")], {}, ROOT, ())


def of_network() -> Iterator[Violation]:
    for host in ("db", "www.example.com", "localhost", "foo bar", "a..b", "x" * 300, "bücher.example", ""):
        yield describe(Act.QUERY, "", host, 0, "", 1)
    for path in ("/var/run/docker.sock", "/tmp/ssh-a:b/agent.1", "/tmp/ssh-\n/agent", "ssh-x/../agent"):
        yield describe(Act.CONNECT, UNIX, path, 0, "", 1)
    yield describe(Act.OPEN, "icmp", "", 0, "", 1)
    yield describe(Act.SEND, "udp", "::1", 53, "", 1)


def of_the_test_itself(home: Path) -> Iterator[Violation]:
    (home / ".netrc").touch()
    watched = secrets.Secrets()
    watched.begin()
    for name in (".netrc", ".ssh/id_rsa", ".aws/a:b"):
        watched._note(f"{home}/{name}")
    yield from watched.found()
    attempts = project.Project(ROOT)
    for path in ("out/x[1].png", "out/", "a/b/", "top.txt", "a/q\n.txt", f"a/{'long' * 200}"):
        attempts._attempts[f"{ROOT}/{path}", ""] = 1
    yield from attempts.found()


def test_every_cure_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = [*of_files(), *of_network(), *of_the_test_itself(tmp_path)]
    assert len(found) > 100
    for violation in found:
        if violation.cure != "tmp_path":
            assert parsed(violation.cure), violation
        assert Violation.from_told(violation.to_dict()).cure == violation.cure


def test_a_cure_in_words() -> None:
    def told(cure: str) -> str:
        return str(Violation(kind=Kind.FILES, what="created a", cure=cure))

    assert told("") == "files: created a"
    assert told('writes=["a"]') == 'files: created a; allow it with writes=["a"]'
    assert told("tmp_path") == "files: created a; write to tmp_path instead"
    assert told('tmp_path, or artifacts=["a/b"]') == (
        'files: created a; write to tmp_path instead, or allow it with artifacts=["a/b"]'
    )


@pytest.mark.parametrize("kind", Kind)
def test_so_are_those_that_are_constant(kind: Kind) -> None:
    assert parsed(cures.allow(kind)) == {"allow": (kind,)}


def test_so_is_that_of_a_descriptor_of_pytests_own() -> None:
    assert parsed(descriptors.INHERITED_CURE).keys() == {"start", "allow"}


def test_so_is_that_of_an_address() -> None:
    assert parsed(NETWORK).keys() == {"network"}


@pytest.mark.parametrize("path", PATHS)
def test_what_is_told_of_a_file_names_it(path: str) -> None:
    (violation,) = deeds._files([Change(Deed.CREATED, path)], {}, ROOT, ())
    cure = parsed(violation.cure)
    if "writes" not in cure:
        assert cure.keys() == {"allow"}
        return
    writes = cure["writes"]
    assert isinstance(writes, tuple)
    (glob,) = writes
    is_named = matcher((os.path.join(ROOT, os.path.expanduser(glob)),))
    assert is_named(path)
    assert not is_named(path + "x")


@pytest.mark.parametrize(
    ("deed", "globs"),
    [
        (Deed.CREATED, ("/x/a/**",)),
        (Deed.CHANGED, ("/x/a/**",)),
        (Deed.DELETED, ("/x/a",)),
        (Deed.REPLACED, ("/x/a", "/x/a/**")),
    ],
)
def test_what_is_told_of_a_directory(deed: Deed, globs: tuple[str, ...]) -> None:
    (violation,) = deeds._files([Change(deed, "/x/a", is_directory=True)], {}, ROOT, ())
    assert parsed(violation.cure) == {"writes": globs}


def test_a_secret_that_is_not_there_needs_no_bind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".netrc").touch()
    found = {v.what: v.cure for v in of_the_test_itself(tmp_path) if v.kind.value == "secrets"}
    assert found["tried to read ~/.ssh/id_rsa"] == 'allow=["secrets"]'
    assert found["tried to read ~/.netrc"] == (
        f'binds={{"{tmp_path}/.netrc": "{tmp_path}/.netrc:ro"}}, allow=["secrets"]'
    )


@pytest.mark.parametrize(
    ("name", "is_declared"),
    [
        ("localhost", True),
        ("localhost.evil.test", False),
        ("db.corp.test", True),
        ("other", False),
        (None, False),
    ],
)
def test_names_that_are_the_sandbox_itself(name: str | None, is_declared: bool) -> None:
    attempt = Attempt(
        sandbox_id=1,
        index=0,
        pid=7,
        inner_pid=2,
        act=Act.QUERY,
        protocol="udp",
        host="192.0.2.53",
        port=53,
        name=name,
        command=b"",
    )
    assert network_watch._is_declared(attempt, Spec(hosts=(("db", "127.0.0.1"),))) is is_declared
