"""Names of images, and what a project's texts mean."""

from __future__ import annotations

import pytest

from pytest_isolate.errors import ImageError, SpecError
from pytest_isolate.project import find_rootfs
from pytest_isolate.sandbox.images.reference import Reference, looks_like_reference, parse_reference
from pytest_isolate.spec import ImageRootfs, PathRootfs

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost/a", Reference("localhost", "a")),
        ("localhost:5000/a/b_c:1.0-x", Reference("localhost:5000", "a/b_c", "1.0-x")),
        (f"r.example/a@{DIGEST}", Reference("r.example", "a", None, DIGEST)),
        (f"[::1]:5000/a:t@{DIGEST}", Reference("[::1]:5000", "a", "t", DIGEST)),
    ],
)
def test_references(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected
    assert parse_reference(str(expected)) == Reference(
        expected.registry,
        expected.repository,
        expected.tag or (None if expected.digest else "latest"),
        expected.digest,
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a/b",
        "r.example/",
        "r.example/A",
        "r.example/a:",
        "r.example/a@sha256:12",
        "r.example/../a",
        "r.example/a//b",
        "https://r.example/a",
        "r.example/a b",
        f"r.example/a@md5:{'0' * 32}",
        "r.example/" + "a" * 600,
    ],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(ImageError, match=r"HOST\[:PORT\]/NAME"):
        parse_reference(text)


@pytest.mark.parametrize("text", ["/a.b/c", "./a:b/c", "../a.b", "~/x.y", "images/a.tar", "a", "busybox"])
def test_paths_are_no_references(text: str) -> None:
    assert not looks_like_reference(text)


# ---- what a project says -----------------------------------------------------------------------------


def find(tiny: pytest.Pytester, text: str) -> PathRootfs | ImageRootfs:
    return find_rootfs(text, tiny.parseconfigure("--rootdir=."), origin="here")


def test_table_path_and_registry(tiny: pytest.Pytester) -> None:
    tiny.makepyprojecttoml(
        f"""
        [tool.pytest-isolate.images]
        alpine = "r.example/alpine@{DIGEST}"
        local = "images/root.tar"
        "r.example/renamed:1" = "mirror.example/it:1"
        """
    )
    (tiny.path / "with.dot/sub").mkdir(parents=True)
    assert find(tiny, "alpine") == ImageRootfs(f"r.example/alpine@{DIGEST}")
    assert find(tiny, "local") == PathRootfs(str(tiny.path / "images/root.tar"))
    assert find(tiny, "r.example/renamed:1") == ImageRootfs("mirror.example/it:1")
    assert find(tiny, "with.dot/sub") == PathRootfs(str(tiny.path / "with.dot/sub"))
    assert find(tiny, "with.dot/other") == ImageRootfs("with.dot/other:latest")
    assert find(tiny, "later") == PathRootfs(str(tiny.path / "later"), "later")


def test_home_directory(tiny: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert find(tiny, "~/root.tar") == PathRootfs("/home/me/root.tar")


def test_a_hook_comes_first(tiny: pytest.Pytester) -> None:
    tiny.makepyprojecttoml('[tool.pytest-isolate.images]\nbase = "r.example/wrong"')
    tiny.makeconftest(
        """
        import pathlib
        def pytest_isolate_resolve_image(name, config):
            assert config.rootpath.is_dir()
            return {"base": "r.example/right", "path": pathlib.Path("made")}.get(name)
        """
    )
    assert find(tiny, "base") == ImageRootfs("r.example/right:latest")
    assert find(tiny, "path") == PathRootfs(str(tiny.path / "made"), "made")


def test_a_hook_that_fails_is_that_test_s_error(tiny: pytest.Pytester) -> None:
    tiny.makeconftest("def pytest_isolate_resolve_image(name, config): raise RuntimeError('no builder')")
    with pytest.raises(SpecError, match=r"^here: the hook .* failed: RuntimeError\('no builder'\)"):
        find(tiny, "base")


@pytest.mark.parametrize(
    ("toml", "text", "expected"),
    [
        ("[tool.pytest-isolate.images]\na = 1", "a", "is not a table of texts: a is 1; write alpine = "),
        ("[tool.pytest-isolate.images]\n'a.b' = {}", "a", 'is not a table of texts: "a.b" is {}; write'),
        (
            "[tool.pytest-isolate.images]\nok = 'x'\nmy.dear.app = 'y'",
            "ok",
            'is not a table of texts: my is a table; quote a name with a dot, as in "my.dear.app" = "',
        ),
        ("[tool]\npytest-isolate = 1", "a", "is not a table of texts"),
        ("[tool.pytest-isolate]\nimages = 1", "a", "is not a table of texts"),
        ("[tool.pytest-isolate.images]\na = 'r.example/A'", "a", "no name of an image.*which 'a' stands for"),
        ("", "r.example/A", "no name of an image"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    tiny: pytest.Pytester, toml: str, text: str, expected: str
) -> None:
    tiny.makepyprojecttoml(toml)
    with pytest.raises(SpecError, match=f"^here: .*{expected}"):
        find(tiny, text)
