import os
import tempfile

import pytest

PATHS = []


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made")
    (path / "file").write_text("x")
    yield path
    assert (path / "file").read_text() == "x"


def test_path(tmp_path):
    print(tmp_path)
    (tmp_path / "file").write_text("x")
    assert not list(tmp_path.parent.glob("test_path1"))
    assert os.stat(tmp_path).st_mode & 0o777 == 0o700


def test_failing(tmp_path, made):
    (tmp_path / "file").write_text("x")
    print(tmp_path, made)
    assert 0


@pytest.mark.parametrize("name", ["a" * 60, "b/c", "d e"])
def test_names(tmp_path, name):
    print(tmp_path)
    assert tmp_path.is_dir()
    assert 0


def test_tmpdir(tmpdir):
    tmpdir.join("x").write("y")
    print(tmpdir)
    assert 0


def test_factory(tmp_path_factory, made):
    first = tmp_path_factory.mktemp("own")
    second = tmp_path_factory.mktemp("own")
    print(first, second, tmp_path_factory.mktemp("exact", numbered=False))
    assert first != second
    assert 0


def test_tempfile():
    with tempfile.TemporaryDirectory() as directory:
        assert os.path.isdir(directory)
    assert os.path.isdir(tempfile.gettempdir())


def test_chdir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert os.getcwd() == str(tmp_path)


def test_directory_is_back():
    print(os.getcwd())
    assert 0


def test_own_files(request):
    assert (request.config.rootpath / "test_tmp.py").read_text().startswith("import os")
