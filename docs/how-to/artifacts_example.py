import shutil
from pathlib import Path

import pytest

REPORTS = Path("/tmp/artifacts-example")


@pytest.fixture(scope="module", autouse=True)
def reports():
    """A fixture of a wider scope runs on the host, and sees what has been copied."""
    yield
    assert (REPORTS / "build" / "report.txt").read_text() == "all good"
    assert not (REPORTS / "build" / "huge.bin").exists()
    shutil.rmtree(REPORTS)


@pytest.mark.isolated(artifacts=["/tmp/artifacts-example/**/*.txt"])
def test_report():
    build = REPORTS / "build"
    build.mkdir(parents=True)
    (build / "report.txt").write_text("all good")
    (build / "huge.bin").write_bytes(bytes(1_000_000))
