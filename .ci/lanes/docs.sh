# The documentation builds, and every reference in it resolves.
set -euo pipefail

need_environment
cd "$TREE"
"$ENVIRONMENT/bin/sphinx-build" -W --keep-going -q -b html docs "$WORK/html"
