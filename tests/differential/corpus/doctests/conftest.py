import pytest


@pytest.fixture(autouse=True, scope="module")
def namespace_of_module():
    print("module up")
    yield
    print("module down")


@pytest.fixture(autouse=True)
def add(doctest_namespace):
    doctest_namespace["name"] = "from the namespace"
