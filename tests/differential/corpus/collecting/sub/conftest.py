import pytest


@pytest.fixture(autouse=True, scope="package")
def of_directory():
    print("directory up")
    yield
    print("directory down")
