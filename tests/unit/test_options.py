from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_isolate import options
from pytest_isolate.errors import SpecError
from pytest_isolate.lifecycle import header
from pytest_isolate.options import OPTIONS, Option, docs_table
from pytest_isolate.settings import SessionOptions, build_spec, session_options
from pytest_isolate.spec import (
    Bind,
    Environment,
    EnvMode,
    Fixtures,
    HostRootfs,
    Limits,
    Network,
    PathRootfs,
    PrivateNetwork,
    Scope,
    Seccomp,
    Spec,
    Start,
    TcpPort,
    UnixPort,
    User,
    Watch,
)
from pytest_isolate.values import AUTO, Keep, Missing, Pull
from pytest_isolate.violation import Kind

BY_NAME = {option.name: option for option in OPTIONS}
ORIGIN = "@pytest.mark.isolated"

# name: (text for CLI and ini, marker value, value in the Spec); paths are relative to the rootdir "ROOT".
EXAMPLES: dict[str, tuple[str, object, object]] = {
    "memory": ("64M", 64 * 2**20, 64 * 2**20),
    "swap": ("1M", "1MiB", 2**20),
    "cpus": ("50%", 0.5, 0.5),
    "cpu_time": ("10s", 10, 10.0),
    "pids": ("20", 20, 20),
    "files": ("64", 64, 64),
    "tmp_size": ("4K", 4096, 4096),
    "timeout": ("500ms", 0.5, 0.5),
    "network": ("host", "host", Network.HOST),
    "ports": ("5432", [5432], (TcpPort(5432, 5432),)),
    "hosts": ("db=127.0.0.1", {"db": "127.0.0.1"}, (("db", "127.0.0.1"),)),
    "rootfs": ("image", Path("image"), PathRootfs("ROOT/image", "image")),
    "readonly": ("", True, True),
    "binds": (
        "data:/data:ro",
        {"data": "/data:ro"},
        (Bind(source="ROOT/data", target="/data", readonly=True),),
    ),
    "artifacts": ("out/**/*.png", ["out/**/*.png"], ("ROOT/out/**/*.png",)),
    "writes": ("cache/**", ["cache/**"], ("ROOT/cache/**",)),
    "env": ("A=1", {"A": "1"}, Environment(changes=(("A", "1"),))),
    "hostname": ("box-1.test", "box-1.test", "box-1.test"),
    "user": ("root", User.ROOT, User.ROOT),
    "workdir": ("sub", "sub", "ROOT/sub"),
    "start": ("spawn", "spawn", Start.SPAWN),
    "runtime": ("crun", "crun", "crun"),
    "seccomp": ("off", "off", Seccomp.OFF),
    "scope": ("class", "class", Scope.CLASS),
    "fixtures": ("fresh", "fresh", Fixtures.FRESH),
    "exclusive": ("", True, True),
    "watch": ("fail", "fail", Watch.FAIL),
    "allow": ("threads", ["threads"], (Kind.THREADS,)),
    "fresh_fixtures": ("my_*", None, ("my_*",)),
    "all": ("", None, True),
    "strict": ("", None, True),
    "escapes_max": ("3", None, 3),
    "baseline": ("known.json", None, Path("ROOT/known.json")),
    "off": ("", None, True),
    "jobs": ("auto", None, AUTO),
    "jobs_memory": ("2G", None, 2 * 2**30),
    "missing": ("skip", None, Missing.SKIP),
    "pull": ("never", None, Pull.NEVER),
    "store": ("images", None, Path("ROOT/images")),
    "keep": ("failed", None, Keep.FAILED),
    "json": ("out.jsonl", None, Path("ROOT/out.jsonl")),
    "top": ("3", None, 3),
    "profile": ("", None, True),
}


def landed(config: pytest.Config, option: Option, kwargs: dict[str, object] | None = None) -> Any:
    owner, _, name = option.field.rpartition(".")
    if owner == "session":
        return getattr(session_options(config), name)
    spec = build_spec(config, [(kwargs, ORIGIN)] if kwargs else [])
    return getattr(spec.limits if owner else spec, name)


def rooted(value: Any, root: Path) -> Any:
    if isinstance(value, Path):
        return Path(str(value).replace("ROOT", str(root)))
    if isinstance(value, PathRootfs):
        return PathRootfs(value.path.replace("ROOT", str(root)), value.name)
    if isinstance(value, Bind):
        return dataclasses.replace(value, source=value.source.replace("ROOT", str(root)))
    if isinstance(value, str):
        return value.replace("ROOT", str(root))
    if isinstance(value, tuple):
        return tuple(rooted(each, root) for each in value)
    return value


@pytest.mark.parametrize("place", ["cli", "ini", "marker", "docs"])
@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_in_every_place(option: Option, place: str, tiny: pytest.Pytester) -> None:
    text, marker_value, expected = EXAMPLES[option.name]
    if place == "docs":
        (row,) = [row for row in docs_table().splitlines() if row.startswith(f"| `{option.name}` ")]
        cells = re.split(r"(?<!\\)\|", row)[1:-1]
        assert len(cells) == 6
        assert f"`{option.flag}" in cells[1]
        assert cells[2].strip() == f"`{option.key}`"
        assert bool(cells[3].strip()) == ("marker" in option.where)
        assert all(cell.strip() for cell in (cells[4], cells[5]))
        return
    if place == "marker":
        config = tiny.parseconfigure()
        if "marker" not in option.where:
            with pytest.raises(SpecError, match=re.escape(option.flag)):
                build_spec(config, [({option.name: marker_value}, ORIGIN)])
            return
        value = landed(config, option, {option.name: marker_value})
    elif place == "cli":
        value = landed(tiny.parseconfigure(option.flag, *([text] if text else [])), option)
    else:
        tiny.makeini(f"[pytest]\n{option.key} = {text or 'true'}\n")
        value = landed(tiny.parseconfigure(), option)
    assert value == rooted(expected, tiny.path)


def test_examples_are_complete() -> None:
    assert list(EXAMPLES) == [option.name for option in OPTIONS]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_default_is_the_same_in_table_and_spec(option: Option, tiny: pytest.Pytester) -> None:
    value = landed(tiny.parseconfigure(), option)
    assert option.parse(option.default) == value


def test_nothing_given_is_the_plain_spec(tiny: pytest.Pytester) -> None:
    assert build_spec(tiny.parseconfigure(), []) == Spec()


def test_fields_exist() -> None:
    fields = {f"limits.{field.name}" for field in dataclasses.fields(Limits)}
    fields |= {field.name for field in dataclasses.fields(Spec)} - {"limits", "strict"}
    fields |= {f"session.{field}" for field in SessionOptions._fields}
    assert sorted(fields) == sorted(option.field for option in OPTIONS)


def test_precedence(tiny: pytest.Pytester) -> None:
    tiny.makeini("[pytest]\nisolate_memory = 1M\nisolate_pids = 1\nisolate_files = 100\n")
    config = tiny.parseconfigure("--isolate-memory=2M", "--isolate-pids=2")
    spec = build_spec(config, [({"memory": "4M"}, ORIGIN), ({"memory": "3M", "cpus": 3}, ORIGIN)])
    assert spec.limits == Limits(memory_bytes=4 * 2**20, swap_bytes=0, pids=2, files=100, cpus=3.0)


def test_none_takes_a_cap_away(tiny: pytest.Pytester) -> None:
    config = tiny.parseconfigure("--isolate-memory=2M", "--isolate-pids=2", "--isolate-swap=none")
    assert build_spec(config, [({"memory": None}, ORIGIN)]).limits == Limits(pids=2)


@pytest.mark.parametrize(
    ("kwargs", "swap"),
    [
        ({"memory": "4M"}, 0),
        ({"memory": "4M", "swap": None}, None),
        ({"memory": "4M", "swap": "1M"}, 2**20),
        ({}, None),
    ],
)
def test_swap_follows_memory(kwargs: dict[str, object], swap: int | None, tiny: pytest.Pytester) -> None:
    assert build_spec(tiny.parseconfigure(), [(kwargs, ORIGIN)]).limits.swap_bytes == swap


WRONG = [
    ("memory", "1023K", "1.0 MiB"),
    ("memory", "64MB", "64M"),
    ("memory", "", "64M"),
    ("swap", "-1", "64M"),
    ("cpus", "0", "0.01"),
    ("cpus", "0.001", "0.01"),
    ("cpu_time", "0", "1.0 ms"),
    ("timeout", "0", "1.0 ms"),
    ("timeout", "soon", "500ms"),
    ("pids", "0", "1"),
    ("pids", str(2**23), str(2**22)),
    ("pids", "1.5", "whole number"),
    ("files", "3", "16"),
    ("tmp_size", "0", "4.0 KiB"),
    ("network", "lan", "'none', 'host', 'private'"),
    ("network", "private:", "'private:GROUP'"),
    ("network", "private:a b", "'private:GROUP'"),
    ("ports", "0", "from 1 to 65535"),
    ("ports", "65536", "from 1 to 65535"),
    ("ports", "1:2:3", "HOST:INSIDE"),
    ("ports", ":80", "HOST:INSIDE"),
    ("ports", "http", "HOST:INSIDE"),
    ("ports", "run/db.sock", "absolute path"),
    ("hosts", "db", "NAME=ADDRESS"),
    ("hosts", "db=localhost", "IP address"),
    ("hosts", "d b=127.0.0.1", "letters"),
    ("hosts", "=127.0.0.1", "letters"),
    ("hosts", "localhost=10.0.0.1", "choose another name"),
    ("scope", "session", "'function', 'class' or 'module'"),
    ("fixtures", "stale", "'shared' or 'fresh'"),
    ("rootfs", "", "'host', a path or the name of an image"),
    ("rootfs", "a\0b", "'host', a path or the name of an image"),
    ("binds", "/data", "SOURCE:/TARGET[:ro|:rw]"),
    ("binds", "/data:data", "absolute target"),
    ("binds", "/data:/../etc", "'..'"),
    ("binds", "/data:/data:rx", "SOURCE:/TARGET[:ro|:rw]"),
    ("binds", "/data:/", "rootfs"),
    ("binds", ":/data", "no source"),
    ("binds", "/d\0:/data", "no source"),
    ("env", "A", "NAME=VALUE"),
    ("env", "=1", "name"),
    ("env", "-", "name"),
    ("env", "-A=1", "name"),
    ("env", "A=\0", "text or None"),
    ("hostname", "", "64"),
    ("hostname", "a_b", "letters"),
    ("hostname", "-a", "letters"),
    ("hostname", "a..b", "letters"),
    ("hostname", "a\n", "letters"),
    ("hostname", "a" * 64, "letters"),
    ("hostname", "a." * 32 + "a", "64"),
    ("user", "nobody", "'caller', 'root' or 'host-root'"),
    ("start", "thread", "'fork' or 'spawn'"),
    ("missing", "ignore", "'fail', 'skip' or 'degrade'"),
    ("json", "", "path"),
    ("top", "-1", "whole number"),
    ("jobs", "0", "auto or a number from 1"),
    ("jobs", "many", "auto or a number from 1"),
    ("jobs", "-1", "auto or a number from 1"),
    ("jobs_memory", "1K", "1.0 MiB"),
]


@pytest.mark.parametrize(("name", "text", "allowed"), WRONG)
def test_wrong_text_fails_the_test_not_the_session(
    name: str, text: str, allowed: str, tiny: pytest.Pytester
) -> None:
    option = BY_NAME[name]
    config = tiny.parseconfigure(f"{option.flag}={text}")
    assert isinstance(session_options(config).top, int)
    for _ in range(2):
        with pytest.raises(SpecError) as info:
            build_spec(config, [])
        assert info.value.origin == option.flag
        assert str(info.value).startswith(f"{option.flag}: ")
        assert allowed in str(info.value)
        assert "\n" not in str(info.value)
        # Said at the top too, as it may be that no test is isolated.
        assert f"isolate: {info.value}; isolated tests will be errors" in header(config)
    if "marker" in option.where:
        with pytest.raises(SpecError, match=re.escape(allowed)) as info:
            build_spec(tiny.parseconfigure(), [({name: text}, ORIGIN)])
        assert info.value.origin == f"{ORIGIN}({name}=…)"


def test_the_page_shows_what_a_wrong_keyword_gives(tiny: pytest.Pytester) -> None:
    with pytest.raises(SpecError) as info:
        build_spec(tiny.parseconfigure(), [({"memry": "64M"}, ORIGIN)])
    page = Path(__file__).parents[2] / "docs" / "reference" / "options.md"
    assert f"\n{info.value}\n" in page.read_text()


WRONG_OBJECTS = [
    *((option.name, object()) for option in OPTIONS if "marker" in option.where),
    *((option.name, None) for option in OPTIONS if "marker" in option.where and "." not in option.field),
    ("pids", True),
    ("timeout", float("inf")),
    ("readonly", "yes"),
    ("binds", {"/a": None}),
    ("binds", {None: "/a"}),
    ("binds", {"/a": "/x", "/b": "/x/"}),
    ("binds", {"/a": "/x:"}),
    ("binds", [1]),
    ("env", {"A": 1}),
    ("env", {1: "A"}),
    ("env", {"A=B": "1"}),
    ("env", ["inherit", "clean"]),
    ("rootfs", b"/image"),
]


@pytest.mark.parametrize(("name", "value"), WRONG_OBJECTS)
def test_wrong_object_in_a_marker(name: str, value: object, tiny: pytest.Pytester) -> None:
    with pytest.raises(SpecError) as info:
        build_spec(tiny.parseconfigure(), [({name: value}, ORIGIN)])
    assert info.value.origin == f"{ORIGIN}({name}=…)"
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (80, (TcpPort(80, 80),)),
        (["8080:80", 443], (TcpPort(8080, 80), TcpPort(443, 443))),
        (["80", 80], (TcpPort(80, 80),)),
        (Path("/run/a.sock"), (UnixPort("/run/a.sock"),)),
        ("//run/../run/a.sock", (UnixPort("/run/a.sock"),)),
    ],
)
def test_ports(value: object, expected: object, tiny: pytest.Pytester) -> None:
    assert build_spec(tiny.parseconfigure(), [({"ports": value}, ORIGIN)]).ports == expected


def test_two_ports_cannot_be_one_inside(tiny: pytest.Pytester) -> None:
    with pytest.raises(SpecError, match="port 80 inside"):
        build_spec(tiny.parseconfigure(), [({"ports": ["8080:80", 80]}, ORIGIN)])


def test_ports_of_the_hosts_network_are_there_anyway(tiny: pytest.Pytester) -> None:
    config = tiny.parseconfigure("--isolate-network=host")
    with pytest.raises(SpecError, match="--isolate-network gives the test all ports") as info:
        build_spec(config, [({"ports": 80}, ORIGIN)])
    assert info.value.origin == f"{ORIGIN}(ports=…)"


def test_names_of_hosts_have_no_case_and_one_address(tiny: pytest.Pytester) -> None:
    config = tiny.parseconfigure()
    found = build_spec(config, [({"hosts": {"DB": "127.0.0.1", "six": "0:0::1"}}, ORIGIN)])
    assert found.hosts == (("db", "127.0.0.1"), ("six", "::1"))
    with pytest.raises(SpecError, match="two addresses"):
        build_spec(config, [({"hosts": {"db": "127.0.0.1", "DB": "127.0.0.2"}}, ORIGIN)])


@pytest.mark.parametrize(("text", "group"), [("private", ""), ("private:shop-1", "shop-1")])
def test_private_networks(text: str, group: str, tiny: pytest.Pytester) -> None:
    found = build_spec(tiny.parseconfigure(f"--isolate-network={text}"), [])
    assert found.network == PrivateNetwork(group)
    assert found.network.value == text


def test_a_runtime_implies_a_fresh_interpreter(tiny: pytest.Pytester) -> None:
    config = tiny.parseconfigure()
    assert build_spec(config, [({"runtime": "runc"}, ORIGIN)]).start is Start.SPAWN
    assert build_spec(config, [({"runtime": "native"}, ORIGIN)]).start is Start.FORK
    assert build_spec(config, [({"runtime": "bin/runc"}, ORIGIN)]).runtime == f"{config.rootpath}/bin/runc"


def test_a_runtime_cannot_fork(tiny: pytest.Pytester) -> None:
    config = tiny.parseconfigure("--isolate-start=fork")
    with pytest.raises(SpecError) as info:
        build_spec(config, [({"runtime": "runc"}, ORIGIN)])
    assert info.value.origin == f"{ORIGIN}(runtime=…)"
    assert "--isolate-start" in str(info.value)
    assert "say start=spawn there, or nothing" in str(info.value)


def test_a_wrong_value_that_does_not_count_is_no_error(tiny: pytest.Pytester) -> None:
    tiny.makeini("[pytest]\nisolate_memory = lots\n")
    config = tiny.parseconfigure("--isolate-memory=2M")
    assert build_spec(config, [({"pids": 3}, ORIGIN), ({"pids": "many"}, ORIGIN)]).limits.pids == 3


@pytest.mark.parametrize(
    ("keyword", "expected"),
    [
        ("memroy", "did you mean memory?"),
        ("time_out", "did you mean timeout?"),
        ("zzz", "allowed: memory, swap, "),
    ],
)
def test_unknown_keyword(keyword: str, expected: str, tiny: pytest.Pytester) -> None:
    with pytest.raises(SpecError, match=re.escape(expected)) as info:
        build_spec(tiny.parseconfigure(), [({}, ORIGIN), ({keyword: 1}, ORIGIN)])
    assert info.value.origin == ORIGIN
    assert keyword in str(info.value)


def test_repeated_flags(tiny: pytest.Pytester) -> None:
    flags = ["--isolate-binds=/a:/x", "--isolate-binds=b/../c:d:/y//z/:rw", "--isolate-env=clean"]
    config = tiny.parseconfigure(*flags, "--isolate-env=A=1=2", "--isolate-env=-B", "--isolate-env=C=")
    spec = build_spec(config, [])
    assert spec.binds == (
        Bind(source="/a", target="/x"),
        Bind(source=str(tiny.path / "c:d"), target="/y/z"),
    )
    assert spec.env == Environment(mode=EnvMode.CLEAN, changes=(("A", "1=2"), ("B", None), ("C", "")))


def test_ini_lines(tiny: pytest.Pytester) -> None:
    tiny.makeini("[pytest]\nisolate_binds =\n  /a:/x:ro\n  b:/y\nisolate_env =\n  clean\n  -B\n")
    spec = build_spec(tiny.parseconfigure(), [])
    assert [bind.target for bind in spec.binds] == ["/x", "/y"]
    assert spec.env == Environment(mode=EnvMode.CLEAN, changes=(("B", None),))


def test_marker_env_and_host_rootfs(tiny: pytest.Pytester) -> None:
    config = tiny.parseconfigure("--isolate-rootfs=/image", "--isolate-env=clean")
    spec = build_spec(config, [({"env": {"A": None, "B": "1"}, "rootfs": "host"}, ORIGIN)])
    assert spec.env == Environment(mode=EnvMode.INHERIT, changes=(("A", None), ("B", "1")))
    assert spec.rootfs == HostRootfs()


@pytest.mark.parametrize("key", ["isolate_all", "isolate_off", "isolate_readonly"])
def test_wrong_ini_flag(key: str, tiny: pytest.Pytester) -> None:
    tiny.makeini(f"[pytest]\n{key} = maybe\n")
    config = tiny.parseconfigure()
    # A wrong isolate_all counts as on, so that every test says why.
    assert session_options(config).isolate_all is (key == "isolate_all")
    assert session_options(config).off is False
    with pytest.raises(SpecError, match="maybe") as info:
        build_spec(config, [])
    assert info.value.origin == f"ini {key}"


@pytest.mark.skipif(pytest.version_tuple < (9, 0), reason="native TOML came with pytest 9.0")
def test_native_toml(tiny: pytest.Pytester) -> None:
    tiny.makepyprojecttoml(
        "[tool.pytest]\nisolate_all = true\nisolate_memory = '64M'\nisolate_binds = ['/a:/x']\n"
        "isolate_hostname = ['a']\n"
    )
    config = tiny.parseconfigure()
    assert session_options(config).isolate_all is True
    with pytest.raises(SpecError, match="'isolate_hostname' expects") as info:
        build_spec(config, [])
    assert info.value.origin == "ini isolate_hostname"
    assert build_spec(config, [({"hostname": "b"}, ORIGIN)]).limits.memory_bytes == 64 * 2**20


@pytest.mark.skipif(
    pytest.version_tuple < (9, 2), reason="ini keys of more than one type came with pytest 9.2"
)
def test_native_toml_numbers(tiny: pytest.Pytester) -> None:
    tiny.makepyprojecttoml("[tool.pytest]\nisolate_pids = 10\nisolate_cpus = 0.5\nisolate_timeout = '2m'\n")
    assert build_spec(tiny.parseconfigure(), []).limits == Limits(pids=10, cpus=0.5, timeout_s=120.0)


def test_json_path_on_the_command_line_is_relative_to_the_working_directory(
    tiny: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.makeini("[pytest]\n")
    below = tiny.mkdir("below")
    monkeypatch.chdir(below)
    assert session_options(tiny.parseconfigure("--isolate-json=out")).json_path == below / "out"
    assert session_options(tiny.parseconfigure("-o", "isolate_json=out")).json_path == tiny.path / "out"


def test_values_are_parsed_once_a_session(tiny: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny.parseconfigure("--isolate-memory=2M")
    first = build_spec(config, [])
    with monkeypatch.context() as patch:
        patch.setattr(config, "getini", None)
        assert build_spec(config, []) == first
    assert session_options(config) is session_options(config)


def test_marker_lines_and_help(tiny: pytest.Pytester) -> None:
    config = tiny.parseconfigure()
    lines = [line for line in config.getini("markers") if "isolated" in line.partition("(")[0]]
    names = [option.name for option in OPTIONS if "marker" in option.where]
    assert [line.partition("(")[0] for line in lines] == ["isolated", "not_isolated"]
    # pytest --markers cuts at the first colon.
    signature = lines[0].partition(":")[0]
    assert re.findall(r"(\w+)=", signature) == names
    assert signature.endswith(")")
    assert lines[1].startswith("not_isolated(*, reason): ")


def test_help_names_all(tiny: pytest.Pytester) -> None:
    tiny.plugins = []
    tiny.makeconftest("from pytest_isolate.options import add_options as pytest_addoption")
    result = tiny.runpytest_inprocess("--help")
    assert result.ret == 0
    text = result.stdout.str()
    for option in OPTIONS:
        assert option.flag in text
        assert option.key in text


def test_import_is_light() -> None:
    code = (
        "import sys, pytest; sys.modules.pop('difflib', None); import pytest_isolate.marker;"
        "print([name for name in ('difflib', 'pytest_isolate.spec') if name in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(options.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "[]"
