"""Recipes of images as they are read: what they say, what they inherit, and what is wrong with them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from pytest_isolate.errors import ImageError
from pytest_isolate.sandbox.images.recipe import Busybox, Debian, Recipe, find_recipe, read_recipe
from pytest_isolate.sandbox.images.reference import check_name

RECIPES = Path(__file__).parents[2] / "rootfs-images"
EPOCH = "source_date_epoch = 1\n"


def read(directory: Path, **recipes: str) -> Recipe:
    """The last of them."""
    for name, text in recipes.items():
        (directory / f"{name}.toml").write_text(text)
    return read_recipe(directory / f"{[*recipes][-1]}.toml")


def test_the_recipes_of_the_repository() -> None:
    recipes = {path.stem: read_recipe(path) for path in RECIPES.glob("*.toml")}
    assert sorted(recipes) == ["busybox", "debian-slim", "python-slim"]
    assert recipes["busybox"].builder == Busybox("busybox-static")
    assert recipes["python-slim"].base == recipes["debian-slim"]


def test_all_keys(tmp_path: Path) -> None:
    recipe = read(
        tmp_path,
        it="""
        source_date_epoch = 86400
        [debian]
        suite = "trixie"
        variant = "apt"
        packages = ["git", "libstdc++6"]
        path_exclude = ["/usr/share/doc/*"]
        path_include = ["/usr/share/doc/*/copyright"]
        [files]
        "/etc/motd" = "hello"
        [config]
        env = ["A=1", "B="]
        user = "nobody"
        workdir = "/srv"
        """,
    )
    assert dataclasses.replace(recipe, state="") == Recipe(
        name="it",
        state="",
        base=None,
        builder=Debian(
            suite="trixie",
            variant="apt",
            packages=("git", "libstdc++6"),
            path_exclude=("/usr/share/doc/*",),
            path_include=("/usr/share/doc/*/copyright",),
        ),
        source_date_epoch=86400,
        files=(("/etc/motd", "hello"),),
        env=("A=1", "B="),
        user="nobody",
        workdir="/srv",
    )


def test_what_a_recipe_does_not_say_is_as_in_the_one_it_builds_on(tmp_path: Path) -> None:
    base = (
        EPOCH + "[debian]\nsuite = 'sid'\npackages = ['a']\npath_exclude = ['/x']\n"
        "[files]\n'/a' = ''\n[config]\nenv = ['A=1']\nuser = 'me'"
    )
    recipe = read(
        tmp_path, base=base, it="from = 'base'\n[debian]\npackages = ['b']\n[config]\nenv = ['B=2']"
    )
    assert recipe.builder == Debian(
        suite="sid", variant="minbase", packages=("a", "b"), path_exclude=("/x",), path_include=()
    )
    assert (recipe.source_date_epoch, recipe.user, recipe.env) == (1, "me", ("A=1", "B=2"))
    assert recipe.files == (("/a", ""),)


def test_the_state_changes_with_the_recipe_and_what_it_builds_on(tmp_path: Path) -> None:
    base = EPOCH + "[debian]\nsuite = 'sid'\n"
    child = "from = 'base'\n[debian]\n"
    states = {
        read(tmp_path, base=base, it=child).state,
        read(tmp_path, base=base, it=child + "# \n").state,
        read(tmp_path, base=base + "# \n", it=child).state,
        read(tmp_path, base=base).state,
    }
    assert len(states) == 4
    assert read(tmp_path, base=base, it=child).state in states


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[debian", "is not TOML"),
        (EPOCH, "it has no builder"),
        (EPOCH + "[debian]\nsuite='sid'\n[busybox]", "it has busybox and debian"),
        ("[busybox]", "source_date_epoch is not given"),
        ("source_date_epoch = -1\n[busybox]", "source_date_epoch is -1"),
        ("source_date_epoch = true\n[busybox]", "source_date_epoch is True"),
        (EPOCH + "[busybox]\npackge = 'x'", "unknown key 'busybox.packge'; known: package"),
        (EPOCH + "busybox = 1", "busybox is 1, not a table"),
        (EPOCH + "[busybox]\npackage = '--force'", "busybox.package is '--force'"),
        (EPOCH + "[debian]", "debian.suite is not given"),
        (EPOCH + "[debian]\nsuite = 'sid'\npackages = 'git'", "debian.packages is 'git', not a list"),
        (EPOCH + "[debian]\nsuite = 'sid'\npackages = [1]", "an entry of debian.packages is 1"),
        (EPOCH + "[debian]\nsuite = 'sid'\npackages = ['-o=x']", "'-o=x'"),
        (EPOCH + "[busybox]\n[files]\n'etc/passwd' = ''", "files has 'etc/passwd'"),
        (EPOCH + "[busybox]\n[files]\n'/../passwd' = ''", "files has '/../passwd'"),
        (EPOCH + "[busybox]\n[files]\n'/etc/passwd' = 1", "files has '/etc/passwd'"),
        (EPOCH + "[busybox]\n[config]\nenv = ['A']", "'A'"),
        (EPOCH + "[busybox]\n[config]\nshell = ''", "unknown key 'config.shell'"),
        (EPOCH + "from = '../x'\n[busybox]", "from is '../x'"),
        (EPOCH + "from = 'none'\n[busybox]", "none.toml: No such file"),
        ("from = 'it'\n[debian]", "builds on itself"),
        ("from = 'box'\n[debian]\nsuite='sid'", "[debian] does not build on [busybox]"),
        ("from = 'box'\n[busybox]", "[busybox] builds on nothing"),
    ],
)
def test_what_is_wrong_with_a_recipe(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=re.escape(problem)) as error:
        read(tmp_path, box=EPOCH + "[busybox]", it=text)
    assert "\n" not in str(error.value)


def test_a_recipe_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    directory = tmp_path / "rootfs-images"
    directory.mkdir()
    (directory / "a.toml").touch()
    assert find_recipe("a", tmp_path) == directory / "a.toml"
    assert find_recipe(str(directory / "a.toml"), Path("/")) == directory / "a.toml"
    with pytest.raises(ImageError, match=r"there is no recipe b in .*; there is: a$"):
        find_recipe("b", tmp_path)
    with pytest.raises(ImageError, match="name a file, or run this where the recipes are"):
        find_recipe("a", directory)
    with pytest.raises(ImageError, match=r"there is no recipe a$"):
        find_recipe("./a", tmp_path)


@pytest.mark.parametrize(
    "name", ["busybox", "busybox:1.35", "A_b.c-d", "localhost:5000/x:1", "r.example/a/b:c"]
)
def test_names_that_an_image_may_have(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "host", "a/b", "/a", "../a", "a b", "a#b", ".a", "a:", "x" * 200, "r.example/a@sha256:" + "0" * 64],
)
def test_names_that_no_image_may_have(name: str) -> None:
    with pytest.raises(ImageError):
        check_name(name)
