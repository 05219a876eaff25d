"""Inner runs know this plugin and pytest-xdist. All else that the extra ``test`` installs takes half a second of each
run, or changes it, and is there for those who ask for it by ``-p NAME``."""

from __future__ import annotations

__all__ = ["ALL_OFF", "ENVIRONMENT"]

NAMES = (
    "anyio",
    "asyncio",
    "benchmark",
    "django",
    "html",
    "html_fixtures",
    "hypothesispytest",
    "metadata",
    "pytest-subprocess",
    "pytest_cov",
    "pytest_jsonreport",
    "pytest_mock",
    "randomly",
    "rerunfailures",
    "syrupy",
    "timeout",
    "trio",
)
#: pytest's arguments, where it looks for plugins as it does for its users.
ALL_OFF = tuple(argument for name in NAMES for argument in ("-p", f"no:{name}"))
#: Where it does not need to look, which is faster.
ENVIRONMENT = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p isolate -p xdist"}
