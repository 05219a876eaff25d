"""Where ``docker login`` and ``skopeo login`` leave credentials, and what of it is found."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import pytest

from pytest_isolate.sandbox.images import credentials
from pytest_isolate.sandbox.images.credentials import Credentials, Found, find_credentials


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "bin").mkdir()
    return tmp_path


def write(path: Path, config: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return path


def entry(user: str, password: str = "secret") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def helper(home: Path, name: str, script: str) -> Path:
    path = home / "bin" / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def user_of(registry: str, repository: str = "a/b") -> str | None:
    found = find_credentials(registry, repository).credentials
    return found.user if found else None


def test_there_are_none() -> None:
    assert find_credentials("r.example", "a") == Found()


def test_a_password_may_have_colons(home: Path) -> None:
    path = write(home / ".docker/config.json", {"auths": {"r.example": entry("alice", "a:b:c")}})
    found = find_credentials("r.example", "a").credentials
    assert found == Credentials("alice", str(path), "a:b:c")
    assert "a:b:c" not in repr(found)


def test_the_order_of_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """containers-auth.json(5), and docker's variable first."""
    write(home / ".docker/config.json", {"auths": {"r.example": entry("docker")}})
    assert user_of("r.example") == "docker"
    write(home / ".config/containers/auth.json", {"auths": {"r.example": entry("config")}})
    assert user_of("r.example") == "config"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(home / "run"))
    write(home / "run/containers/auth.json", {"auths": {"r.example": entry("runtime")}})
    assert user_of("r.example") == "runtime"
    monkeypatch.setenv("DOCKER_CONFIG", str(home / "elsewhere"))
    write(home / "elsewhere/config.json", {"auths": {"r.example": entry("variable")}})
    assert user_of("r.example") == "variable"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(home / "only.json"))
    assert user_of("r.example") is None


def test_a_file_that_does_not_know_the_registry_is_passed_over(home: Path) -> None:
    write(home / ".config/containers/auth.json", {"auths": {"other.example": entry("other")}})
    write(home / ".docker/config.json", {"auths": {"r.example": entry("alice")}})
    assert user_of("r.example") == "alice"


def test_the_most_particular_entry_counts(home: Path) -> None:
    auths = {"r.example": entry("host"), "r.example/a": entry("a"), "r.example/a/b": entry("ab")}
    write(home / ".docker/config.json", {"auths": auths})
    assert user_of("r.example", "a/b") == "ab"
    assert user_of("r.example", "a/c") == "a"
    assert user_of("r.example", "ab") == "host"
    assert user_of("r.example:5000", "a") is None


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("https://r.example", "r.example"),
        ("https://r.example/v2/", "r.example"),
        ("http://r.example:5000/v1/", "r.example:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
    ],
)
def test_old_forms_of_keys(home: Path, key: str, registry: str) -> None:
    write(home / ".docker/config.json", {"auths": {key: entry("alice")}})
    assert user_of(registry) == "alice"
    assert user_of("x" + registry) is None


def test_an_identity_token(home: Path) -> None:
    path = write(home / ".docker/config.json", {"auths": {"r.example": {"identitytoken": "secret"}}})
    assert find_credentials("r.example", "a").credentials == Credentials(
        "", str(path), identity_token="secret"
    )


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "[" * 100_000, '{"auths": {"r.example": {"auth": "secret!"}}}'],
    ids=["json", "list", "deep", "base64"],
)
def test_a_broken_file_is_a_problem_and_no_end(home: Path, text: str) -> None:
    write(home / ".config/containers/auth.json", text)
    write(home / ".docker/config.json", {"auths": {"r.example": entry("alice")}})
    found = find_credentials("r.example", "a")
    assert found.credentials is not None
    assert found.credentials.user == "alice"
    (problem,) = found.problems
    assert problem.startswith(f"cannot read credentials from {home}/.config/containers/auth.json: ")
    assert "secret" not in problem


@pytest.mark.parametrize(
    "auths", [None, [], {"r.example": None}, {"r.example": {}}, {"r.example": {"auth": 1}}]
)
def test_an_entry_that_says_nothing(home: Path, auths: object) -> None:
    write(home / ".docker/config.json", {"auths": auths})
    assert find_credentials("r.example", "a") == Found()


# --- helpers

ANSWER = """read -r server; echo "{\\"ServerURL\\": \\"$server\\", \\"Username\\": \\"$1 $server\\", \\"Secret\\": \\"s\\"}" """


def test_a_helper_is_told_the_registry_and_answers(home: Path) -> None:
    path = helper(home, "mine", ANSWER)
    config = {"auths": {"r.example": {}}, "credsStore": "other", "credHelpers": {"r.example": "mine"}}
    write(home / ".docker/config.json", config)
    found = find_credentials("r.example", "a").credentials
    assert found == Credentials("get r.example", str(path), "s")


def test_the_store_is_for_all_others_and_docker_hub_has_a_name_of_its_own(home: Path) -> None:
    helper(home, "all", ANSWER)
    write(home / ".docker/config.json", {"credsStore": "all", "credHelpers": {"r.example": "mine"}})
    assert user_of("s.example:5000") == "get s.example:5000"
    assert user_of("docker.io") == "get https://index.docker.io/v1/"


def test_a_helper_may_have_an_identity_token(home: Path) -> None:
    path = helper(home, "mine", """echo '{"Username": "<token>", "Secret": "secret"}'""")
    write(home / ".docker/config.json", {"credsStore": "mine"})
    found = find_credentials("r.example", "a").credentials
    assert found == Credentials("", str(path), identity_token="secret")


def test_a_helper_that_knows_nothing_leaves_it_to_the_file(home: Path) -> None:
    helper(home, "mine", "echo 'credentials not found in native keychain'; exit 1")
    write(home / ".docker/config.json", {"credsStore": "mine", "auths": {"r.example": entry("alice")}})
    assert find_credentials("r.example", "a").problems == ()
    assert user_of("r.example") == "alice"


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo locked; exit 1", "failed: 'locked'"),
        ("echo secret", "answers with something that is no JSON of a helper"),
        ("""echo '{"Username": "secret"}'""", "answers with something that is no JSON of a helper"),
        ("""echo '{"Username": "u", "Secret": 1}'""", "answers with something that is no JSON of a helper"),
        ("exec sleep 60", "gave no answer in 0.2 s"),
    ],
)
def test_a_helper_that_fails_is_a_problem(
    home: Path, script: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "HELPER_TIMEOUT_S", 0.2 if "sleep" in script else 30)
    path = helper(home, "mine", script)
    write(home / ".docker/config.json", {"credsStore": "mine"})
    found = find_credentials("r.example", "a")
    assert found == Found(None, (f"{path} {problem}",))


@pytest.mark.parametrize("name", ["none-of-that-name", "../../bin/true", "", 1])
def test_a_helper_that_is_not_there(home: Path, name: object) -> None:
    write(home / ".docker/config.json", {"credHelpers": {"r.example": name}})
    found = find_credentials("r.example", "a")
    assert found.credentials is None
    assert len(found.problems) == (1 if name else 0)
