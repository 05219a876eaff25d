# Suites end the same with and without isolation: those written for the purpose in every mode, and a part of
# pytest's own.  What differs, and is meant to, stands with its reason in tests/differential/*.toml.
set -euo pipefail

need_environment
cd "$TREE"

# differential ARGUMENT…: the tool; what it leaves is in WORK.
differential() {
    timeout --kill-after=30s "$PYTEST_LIMIT" \
        "$ENVIRONMENT/bin/python" -m tests.differential --work "$WORK/differential" "$@" < /dev/null
}

say "the corpus"
differential --jobs "$(nproc)" --mode loaded --mode isolated --mode spawn --mode jobs --mode xdist corpus
say "pytest's own tests, the quick part"
differential pytest quick
