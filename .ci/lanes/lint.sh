# Style of the Python and shell code, spelling, and this directory's own doctest.
set -euo pipefail

need_environment
need_packages shellcheck codespell
cd "$TREE"

"$ENVIRONMENT/bin/ruff" check .
"$ENVIRONMENT/bin/ruff" format --check .
# What the tests misspell, they misspell on purpose.
codespell --skip './.git,./.ruff_cache,*.so,*.svg' --ignore-words-list alph,memroy,testin,waht .
shellcheck --shell=bash --source-path=SCRIPTDIR --external-sources .ci/run .ci/lib.sh .ci/lanes/*.sh
"$ENVIRONMENT/bin/python" -m doctest .ci/readme_block.py
[[ -d docs/changelog.d ]] || die "docs/changelog.d, the place of changelog fragments, is missing"
