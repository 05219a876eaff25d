import functools
import subprocess
import sys


def pytest_isolate_resolve_image(name, config):
    """Build the image of a recipe when a test first asks for it."""
    recipe = config.rootpath / "rootfs-images" / f"{name}.toml"
    if recipe.exists():
        build(recipe)
    # None: pytest-isolate goes on to look for the name itself.


@functools.cache
def build(recipe):
    command = [sys.executable, "-m", "pytest_isolate.cli", "image", "build", "--missing", recipe]
    subprocess.run(command, check=True)
