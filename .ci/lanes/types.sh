# Static types of the package and of its tests.
set -euo pipefail

need_environment
cd "$TREE"
"$ENVIRONMENT/bin/mypy" --strict pytest_isolate tests
