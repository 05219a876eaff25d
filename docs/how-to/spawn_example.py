import os
import sys

import pytest

imported_by = os.getpid()  # in a sandbox a test is process 2


@pytest.fixture(scope="session")
def connection():
    return object()  # with start="spawn" made for this test alone, whatever its scope


@pytest.mark.isolated
def test_forked():
    # A copy of pytest: what is imported and made there is here.
    assert os.getpid() == 2
    assert imported_by != 2


@pytest.mark.isolated(start="spawn")
def test_spawned(connection):
    # A fresh interpreter has imported this file itself, in the sandbox.
    assert imported_by == os.getpid() == 2


@pytest.mark.isolated(start="spawn")
def test_same_hashes_each_time():
    # Sets of texts have the same order in each run: PYTHONHASHSEED is 0, if the test's env does not name it.
    assert os.environ["PYTHONHASHSEED"] == "0"
    assert sys.flags.hash_randomization == 0


@pytest.mark.isolated(start="spawn", env={"PYTHONHASHSEED": "42", "LC_ALL": "C", "PYTHONUTF8": "1"})
def test_interpreter_reads_the_environment():
    # Of variables that count only when Python starts, those of the test are read.
    assert os.environ["PYTHONHASHSEED"] == "42"
    assert sys.flags.utf8_mode == 1
