# What README.md tells people to type works, word for word, in a fresh clone.
set -euo pipefail

# try_block NAME: run the block that <!-- ci: NAME --> marks.
try_block() {
    say "README.md: $1"
    python3 .ci/readme_block.py README.md "$1" > "$WORK/readme-$1.sh"
    cat "$WORK/readme-$1.sh"
    timeout --kill-after=30s 30m bash -euo pipefail "$WORK/readme-$1.sh"
}

clone "$WORK/readme"
cd "$WORK/readme"
# Here every kernel feature is there: a test skipped for want of one would be a hole.
PYTEST_ADDOPTS="--require-features=all -n 2" try_block tests
try_block examples
