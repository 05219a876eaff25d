import subprocess
import sys
import time


def test_what_is_written_goes_to_tmp_path(tmp_path):
    (tmp_path / "settings.toml").write_text("debug = true")
    assert [path.name for path in tmp_path.iterdir()] == ["settings.toml"]


def test_a_variable_is_the_tests_own(monkeypatch):
    monkeypatch.setenv("SHOP_URL", "http://127.0.0.1:8080")
    command = [sys.executable, "-c", "import os; print(os.environ['SHOP_URL'])"]
    assert subprocess.check_output(command, text=True).strip() == "http://127.0.0.1:8080"


def test_a_time_that_is_the_same_everywhere():
    assert time.strftime("%H:%M", time.gmtime(0)) == "00:00"
