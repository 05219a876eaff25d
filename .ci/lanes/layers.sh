# Imports go strictly downwards, and every module says what it exports.
set -euo pipefail

need_environment
cd "$TREE"
run_pytest "$ENVIRONMENT" tests/unit/test_layering.py tests/unit/test_exports.py
