"""Tests that are no Python: the example of pytest's documentation, with JSON for YAML."""

import json

import pytest


def pytest_collect_file(parent, file_path):
    if file_path.suffix == ".json" and file_path.name.startswith("test"):
        return JsonFile.from_parent(parent, path=file_path)
    return None


class JsonFile(pytest.File):
    def setup(self):
        print("file up", self.name)

    def teardown(self):
        print("file down", self.name)

    def collect(self):
        for name, spec in sorted(json.loads(self.path.read_text()).items()):
            yield JsonItem.from_parent(self, name=name, spec=spec)


class JsonItem(pytest.Item):
    def __init__(self, *, spec, **kwargs):
        super().__init__(**kwargs)
        self.spec = spec
        self.add_marker("json")

    def setup(self):
        print("item up", self.name)
        if "setup" in self.spec:
            raise RuntimeError("item set-up fails")

    def runtest(self):
        print("runs", self.name)
        for name, value in sorted(self.spec.items()):
            if name != value:
                raise JsonError(self, name, value)

    def teardown(self):
        print("item down", self.name)
        if "teardown" in self.spec:
            raise RuntimeError("item teardown fails")

    def repr_failure(self, excinfo):
        if isinstance(excinfo.value, JsonError):
            return "usecase execution failed\n   spec failed: {1!r}: {2!r}".format(*excinfo.value.args)
        return super().repr_failure(excinfo)

    def reportinfo(self):
        return self.path, 0, f"usecase: {self.name}"


class JsonError(Exception):
    pass
