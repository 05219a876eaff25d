# Static types of the package, its tests and the benchmarks.
set -euo pipefail

need_environment
cd "$TREE"
"$ENVIRONMENT/bin/mypy" --strict pytest_isolate tests benchmarks
