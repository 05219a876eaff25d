# What isolation costs here, beside runners that need no environment of their own. Prints; no time fails a lane.
set -euo pipefail

need_environment
cd "$TREE"
timeout --kill-after=30s "$PYTEST_LIMIT" "$ENVIRONMENT/bin/python" -m benchmarks --small --rounds 3 < /dev/null
