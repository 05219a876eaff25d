"""The differential test: a suite run plain and run isolated tells its user the same. ``python -m tests.differential``."""
