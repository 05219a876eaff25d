import pytest


def pytest_generate_tests(metafunc):
    if "generated" in metafunc.fixturenames:
        metafunc.parametrize("generated", range(3), ids=lambda n: f"number-{n}")


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: item.name, reverse=True)
    gone = [item for item in items if "deselected" in item.name]
    items[:] = [item for item in items if item not in gone]
    config.hook.pytest_deselected(items=gone)


@pytest.hookimpl(trylast=True)
def pytest_itemcollected(item):
    item.extra_keyword_matches.add("extra")
