"""What leaves a sandbox when it ends: ``artifacts`` and ``--isolate-keep``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Run

pytestmark = pytest.mark.needs("user namespace")
Runner = Callable[..., Run]


@pytest.fixture
def project(pytester: pytest.Pytester) -> Path:
    return pytester.path


def test_artifacts_arrive_and_nothing_else(run: Runner, project: Path) -> None:
    (project / "snapshots").mkdir()
    (project / "snapshots/one.txt").write_text("old")
    inner = run(
        """
        import os, pathlib, pytest

        def write(name, text):
            path = pathlib.Path(__file__).parent / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

        @pytest.mark.isolated(artifacts=["snapshots/**/*.txt"])
        def test_it():
            write("snapshots/one.txt", "new")
            write("snapshots/deep/two.txt", "new")
            write("snapshots/three.bin", "new")
            write("other.txt", "new")

        @pytest.mark.isolated(artifacts=["out/*"])
        @pytest.mark.parametrize("end", ["assert 0", "os._exit(1)", "os.kill(os.getpid(), 11)"])
        def test_failures(end, request):
            write(f"out/{request.node.name}", "so far")
            exec(end)
        """
    )
    assert inner.outcomes == {"passed": 1, "failed": 3}
    assert (project / "snapshots/one.txt").read_text() == "new"
    assert (project / "snapshots/deep/two.txt").read_text() == "new"
    assert not (project / "snapshots/three.bin").exists()
    assert not (project / "other.txt").exists()
    assert len([*(project / "out").iterdir()]) == 3
    assert [record["artifacts"] for record in inner.records] == [2, 1, 1, 1]
    assert "tests wrote outside tmp_path (7 files, " in inner.out
    assert "thrown away" not in inner.out


def test_artifacts_of_a_private_directory(run: Runner, tmp_path_factory: pytest.TempPathFactory) -> None:
    name = tmp_path_factory.mktemp("unique").as_posix().replace("/", "-")
    inner = run(
        f"import pathlib\n\ndef test_it(): pathlib.Path('/tmp/{name}').write_text('x')",
        f"--isolate-artifacts=/tmp/{name}",
    )
    copy = Path(f"/tmp/{name}")
    try:
        assert inner.outcomes == {"passed": 1}
        assert copy.read_text() == "x"
    finally:
        copy.unlink(missing_ok=True)


def test_artifacts_of_another_root(run: Runner, project: Path) -> None:
    (project / "root/srv").mkdir(parents=True)
    target = project / "made"
    inner = run(
        f"""
        import os, pathlib, pytest

        @pytest.mark.isolated(rootfs="root", artifacts=["{target}/*"])
        def test_it():
            assert os.path.isdir("/srv")
            pathlib.Path("{target}").mkdir(parents=True)
            pathlib.Path("{target}/file").write_text("from inside")
        """,
        f"--basetemp={project.parent / 'inner'}",
    )
    # The project is lent read-only to a foreign root, so that nothing can be made in it.
    assert inner.outcomes == {"failed": 1}
    assert "Read-only file system" in inner.out


def test_what_cannot_be_copied_is_a_warning_even_among_errors(run: Runner, project: Path) -> None:
    (project / "out").mkdir()
    (project / "out/taken").mkdir()
    inner = run(
        """
        import os, shutil

        def test_it():
            os.rmdir("out/taken")
            open("out/taken", "w").close()
            os.symlink("/etc/passwd", "out/link")
            open("out/fine", "w").close()
        """,
        "--isolate-artifacts=out/**",
        "-Werror",
    )
    assert inner.outcomes == {"passed": 1, "warnings": 1}
    assert re.search(r"an artifact of this test is lost: \S+/out/taken: Is a directory", inner.out)
    assert sorted(p.name for p in (project / "out").iterdir()) == ["fine", "taken"]


KEEP = """
import pathlib

def test_good(): pathlib.Path("good").write_text("x")

def test_bad(tmp_path):
    pathlib.Path("bad").write_text("xyz")
    pathlib.Path("/etc/decoy").write_text("x") if __import__("os").access("/etc", 2) else None
    assert 0

def test_bad_without_files(): assert 0
"""


@pytest.mark.vm
@pytest.mark.parametrize(
    ("when", "kept"), [("never", set()), ("failed", {"bad"}), ("always", {"bad", "good"})]
)
def test_keep(run: Runner, project: Path, when: str, kept: set[str]) -> None:
    inner = run(KEEP, f"--isolate-keep={when}", f"--basetemp={project / 'base'}", "-rA")
    assert inner.outcomes == {"passed": 1, "failed": 2}
    directories = [r["kept"] for r in inner.records if r["kept"]]
    assert {d.rpartition("test_")[2].rpartition("-")[0] for d in directories} == kept
    for directory in directories:
        assert directory.rpartition("/")[0] in inner.out.replace("\n", "")
        names = {p.name for p in Path(directory).rglob("*") if p.is_file()}
        assert names & {"good", "bad"}
        assert (Path(directory) / str(project)[1:] / names.intersection({"good", "bad"}).pop()).is_file()
    if when == "failed":
        inner.result.stdout.fnmatch_lines(
            ["*- isolate -*", f"* that the test wrote: kept in {directories[0]}"]
        )
    if when == "never":
        assert not (project / "base/isolate-kept").exists()


def test_keep_and_artifacts_under_xdist(run: Runner, project: Path) -> None:
    pytest.importorskip("xdist")
    inner = run(
        """
        import pathlib, pytest

        @pytest.mark.parametrize("i", range(4))
        def test_it(i):
            pathlib.Path(f"out-{i}").touch()
            pathlib.Path("kept").touch()
            assert i % 2
        """,
        "-n2",
        "--isolate-keep=failed",
        "--isolate-artifacts=out-*",
        f"--basetemp={project / 'base'}",
    )
    assert inner.outcomes == {"passed": 2, "failed": 2}
    assert {p.name for p in project.glob("out-*")} == {f"out-{i}" for i in range(4)}
    kept = [r["kept"] for r in inner.records if r["kept"]]
    assert len(set(kept)) == 2
    assert all((Path(k) / str(project)[1:] / "kept").exists() for k in kept)
