import pytest


@pytest.fixture(scope="session")
def cached(request):
    value = request.config.cache.get("differential/session", 0)
    request.config.cache.set("differential/session", value + 1)
    return value


def pytest_report_header(config):
    return f"cached: {config.cache.get('differential/session', None)}"
