"""What strict makes of a Spec, what it counts, and what it covers."""

from __future__ import annotations

import dataclasses
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from pytest_isolate import strict
from pytest_isolate.errors import SpecError, UnsupportedError
from pytest_isolate.kernel.host import Host
from pytest_isolate.runner import secret_words
from pytest_isolate.sandbox import enter, hermetic, steps
from pytest_isolate.sandbox.lending import Workspace
from pytest_isolate.settings import build_spec
from pytest_isolate.spec import (
    Bind,
    Environment,
    EnvMode,
    Fixtures,
    Network,
    Spec,
    User,
    Watch,
)
from pytest_isolate.violation import Kind


def tight(tiny: pytest.Pytester, *arguments: str, **marker: object) -> Spec:
    config = tiny.parseconfigure("--isolate-strict", *arguments)
    return build_spec(config, [(marker, "@pytest.mark.isolated")])


# -- the Spec -------------------------------------------------------------------------------------------


def test_nothing_asked(tiny: pytest.Pytester) -> None:
    spec = tight(tiny)
    assert (spec.strict, spec.watch, spec.fixtures, spec.network) == (
        True,
        Watch.FAIL,
        Fixtures.FRESH,
        Network.NONE,
    )
    assert spec.env.mode is EnvMode.CLEAN
    assert dict(spec.env.changes) == {
        "SHELL": None,
        "TMPDIR": None,
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
    }
    assert strict.escapes(spec) == ()


@pytest.mark.parametrize(
    ("marker", "escapes"),
    [
        ({"network": "host"}, ('network="host"',)),
        ({"user": "host-root"}, ('user="host-root"',)),
        ({"fixtures": "shared"}, ('fixtures="shared"',)),
        ({"fixtures": "fresh"}, ()),
        ({"binds": ["/a:/b", "/c:/d:ro"]}, ('binds="/a:/b:rw"',)),
        ({"allow": ["threads", "files"]}, ('allow="threads"', 'allow="files"')),
        ({"env": {"CI": "1", "B": "2"}}, ('env="CI"', 'env="B"')),
        ({"env": {"CI": None}}, ()),
        ({"env": "clean"}, ()),
        ({"env": "inherit"}, ('env="inherit"',)),
        ({"env": ["inherit", "A=1"]}, ('env="A"',)),
        ({"env": {"TZ": "Asia/Tokyo"}}, ('env="TZ"',)),
        ({"env": {"TZ": "UTC", "USER": "ann"}}, ()),
        ({"env": {"HOME": "/data"}}, ('env="HOME"',)),
        ({"watch": "off"}, ()),
        ({"hosts": {"db": "127.0.0.1", "mq": "127.0.0.2"}}, ('hosts="db"', 'hosts="mq"')),
        ({"network": "private:shop"}, ('network="private:shop"',)),
        ({"network": "private"}, ('network="private"',)),
        ({"ports": [5432, "8080:80"]}, ('ports="5432"', 'ports="8080:80"')),
        ({"seccomp": "off"}, ('seccomp="off"',)),
        ({"runtime": "crun", "start": "spawn"}, ('runtime="crun"',)),
        ({"artifacts": ["out/*"], "scope": "class", "memory": "1G"}, ()),
    ],
)
def test_escapes(marker: dict[str, object], escapes: tuple[str, ...], tiny: pytest.Pytester) -> None:
    spec = tight(tiny, **marker)
    assert strict.escapes(spec) == escapes
    assert spec.watch is Watch.FAIL


SHOWS = "it shows secrets"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("home/.aws", SHOWS),
        ("home/.aws/credentials", SHOWS),
        ("home/link", SHOWS),  # to a secret
        ("dotfiles", SHOWS),  # which a secret is a link to
        ("home", SHOWS),
        ("/", SHOWS),
        ("docker.sock", "a socket leads to whoever listens there"),
        ("socket-link", "a socket leads to whoever listens there"),
        ("/run", "it shows sockets of the host"),
        ("home/.aws-cli", ""),
        ("home/shop", ""),
        ("/usr/share", ""),
    ],
)
def test_read_only_binds_of_more_than_files(
    source: str, why: str, tmp_path: Path, tiny: pytest.Pytester, home: Path
) -> None:
    for name in (".aws", ".aws-cli"):
        (home / name).mkdir()
    (tmp_path / "dotfiles").mkdir()
    (home / ".ssh").symlink_to(tmp_path / "dotfiles")
    (home / "link").symlink_to(home / ".aws")
    os.mknod(tmp_path / "docker.sock", stat.S_IFSOCK | 0o600)  # bind(2) takes short paths only
    (tmp_path / "socket-link").symlink_to("docker.sock")
    path = str(tmp_path / source)
    spec = tight(tiny, binds={path: "/b:ro"})
    shown = f'binds="{path}:/b:ro": {why}'
    assert strict.escapes(spec, secret_words.of_user()) == ((shown,) if why else ())


def test_what_the_session_loosens_counts_for_each_test(tiny: pytest.Pytester) -> None:
    assert strict.escapes(tight(tiny, "--isolate-network=host")) == ('network="host"',)


def test_a_change_of_a_clean_environment_is_kept(tiny: pytest.Pytester) -> None:
    env = tight(tiny, env={"TZ": "Asia/Tokyo", "CI": "1"}).env
    assert env.mode is EnvMode.CLEAN
    assert dict(env.changes)["TZ"] == "Asia/Tokyo"


LATER: list[tuple[dict[str, Any], str]] = [
    ({"strict": False}, "strict=False of a hook"),
    ({"watch": Watch.OFF}, 'watch="off"'),
    ({"network": Network.HOST}, 'network="host"'),
    ({"user": User.HOST_ROOT}, 'user="host-root"'),
    ({"env": Environment()}, 'env="inherit"'),
    ({"binds": (Bind(source="/a", target="/b"),)}, 'binds="/a:/b:rw"'),
    ({"allow": (Kind.IPC,)}, 'allow="ipc"'),
]


@pytest.mark.parametrize(("changed", "escape"), LATER)
def test_what_a_hook_loosens_counts(changed: dict[str, Any], escape: str, tiny: pytest.Pytester) -> None:
    assert strict.escapes(dataclasses.replace(tight(tiny), **changed)) == (escape,)


def test_the_documented_variables_are_those_of_a_clean_environment() -> None:
    assert {*enter.TAKEN_OVER} == {*strict.ALLOWED, "SHELL", "TMPDIR"}


@pytest.mark.parametrize("key", ["strict", "all"])
def test_a_wrong_switch_isolates_everything(key: str, tiny: pytest.Pytester) -> None:
    from pytest_isolate.settings import session_options

    tiny.makeini(f"[pytest]\nisolate_{key} = perhaps\n")
    assert session_options(tiny.parseconfig()).isolate_all


# -- the tree -------------------------------------------------------------------------------------------


class Layers:
    def __init__(self, *, possible: bool = True) -> None:
        self._possible = possible

    def overlay(self, source: str, *, make_target: bool = False) -> steps.MountOverlay:
        return steps.MountOverlay(source, source, layer="1", user_xattrs=False, make_target=make_target)

    def can_overlay(self, path: str) -> bool:
        return self._possible


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    (home / "shop" / "out").mkdir(parents=True)
    (home / "venv").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(hermetic, "_of_user", lambda host: str(home))
    return home


def workspace(home: Path, **changes: Any) -> Workspace:
    fields: dict[str, Any] = {
        "cwd": str(home / "shop"),
        "project": (str(home / "shop"),),
        "interpreter": (str(home / "venv"), "/usr/lib/python3"),
        "writable": (),
    }
    return Workspace(**(fields | changes))


def cover(home: Path, spec: Spec | None = None, *, possible: bool = True, **changes: Any) -> dict[str, Any]:
    found = hermetic.cover(
        spec or Spec(strict=True), Host(), workspace(home, **changes), Layers(possible=possible)
    )
    return {f"{type(step).__name__} {os.path.relpath(step.target, home)}": step for step in found}


def test_the_home_is_covered_but_for_what_the_run_needs(home: Path) -> None:
    found = cover(home)
    assert [*found] == ["MakeDirectory .", "MountScratch .", "MountBind venv", "MountBind shop"]
    assert found["MountBind shop"].readonly
    assert found["MountBind venv"].readonly


def test_links_of_the_home_lead_where_they_led(home: Path, tmp_path: Path) -> None:
    (tmp_path / "opt").mkdir()
    (home / "tools").mkdir()
    (home / "tools" / "env").symlink_to(tmp_path / "opt")
    found = cover(home, interpreter=(str(home / "tools" / "env"),))
    assert found["MakeSymlink tools/env"].points_to == str(tmp_path / "opt")
    assert "MakeDirectory tools" in found


def test_a_loop_of_links_ends(home: Path) -> None:
    (home / "a").symlink_to("b")
    (home / "b").symlink_to("a")
    assert "MakeSymlink a" in cover(home, interpreter=(str(home / "a" / "x"),))


@pytest.mark.parametrize(
    ("artifact", "possible", "expected"),
    [
        ("out/*.png", True, ["MountBind shop", "MountOverlay shop/out"]),
        ("out/*.png", False, ["MountBind shop", "MakeDirectory shop/out", "MountScratch shop/out"]),
        ("new/*.png", True, ["MountOverlay shop", "MakeDirectory shop/new", "MountScratch shop/new"]),
        ("../else/*.png", True, ["MountBind shop"]),
    ],
)
def test_declared_places_of_the_project(
    artifact: str, possible: bool, expected: list[str], home: Path
) -> None:
    spec = Spec(strict=True, artifacts=(os.path.normpath(f"{home}/shop/{artifact}"),))
    found = [*cover(home, spec, possible=possible)]
    assert found[found.index("MountBind venv") + 1 :] == expected


@pytest.mark.parametrize(
    ("tool", "possible", "expected"),
    [
        ("out", True, ["MountBind shop", "MountOverlay shop/out"]),
        (".tool", True, ["MountOverlay shop", "MakeDirectory shop/.tool", "MountScratch shop/.tool"]),
        (".tool", False, ["MountBind shop"]),  # there is no way to make it
        ("../else", True, ["MountBind shop"]),
        (".", True, ["MountBind shop"]),
    ],
)
def test_what_tools_write_in_vain(tool: str, possible: bool, expected: list[str], home: Path) -> None:
    place = os.path.normpath(f"{home}/shop/{tool}")
    found = [*cover(home, possible=possible, tools=(place,))]
    assert found[found.index("MountBind venv") + 1 :] == expected


def test_what_is_made_first_is_made_read_only_after(home: Path) -> None:
    spec = Spec(strict=True, artifacts=(f"{home}/shop/new/*.png",))
    found = cover(home, spec).values()
    assert [*hermetic.read_only(found, workspace(home))] == [steps.MakeReadOnly(f"{home}/shop")]


@pytest.mark.parametrize("artifact", ["*.png", "**/*.png", "x.png"])
def test_the_project_is_no_declared_place(artifact: str, home: Path) -> None:
    with pytest.raises(SpecError, match="would make the whole project writable"):
        cover(home, Spec(strict=True, artifacts=(f"{home}/shop/{artifact}",)))


def test_a_project_that_is_the_home_is_refused(home: Path) -> None:
    with pytest.raises(
        UnsupportedError, match=r"holds the home directory .*; start pytest in a directory below"
    ):
        cover(home, project=(str(home),))


def test_another_home_if_HOME_is_the_project(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the tests of a plugin: there is nothing to be hidden in it."""
    monkeypatch.setattr(hermetic, "_of_user", lambda host: "/")
    given = workspace(home, project=(str(home),))
    assert hermetic.find_homes(Host(), given) == []
    assert hermetic.environ(Host(), given) == (("HOME", hermetic.SPARE_HOME),)


@pytest.mark.parametrize("HOME", ["/", "/nowhere/at/all"])
def test_another_home_if_there_is_none(HOME: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", HOME)
    monkeypatch.setattr(hermetic, "_of_user", lambda host: "/")
    assert hermetic.environ(Host(), workspace(home)) == (("HOME", hermetic.SPARE_HOME),)


def test_both_homes_are_covered(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "other"))
    assert hermetic.find_homes(Host(), workspace(home)) == [str(tmp_path / "other"), str(home)]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hermetic.find_homes(Host(), workspace(home, project=())) == [str(tmp_path)]
