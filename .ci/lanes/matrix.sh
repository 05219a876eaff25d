# The corners: the oldest and newest CPython of this machine with the oldest and newest pytest.
set -euo pipefail

PYTESTS=(8.4.2 9.2.0)
SELECTION=(tests/plugin)

clone "$WORK/matrix"
cd "$WORK/matrix"
failed=()
pythons > "$WORK/pythons"
while read -r version python; do
    for pytest in "${PYTESTS[@]}"; do
        say "CPython $version, pytest $pytest"
        at=$WORK/matrix-$version-$pytest
        environment "$at" "$python" --editable "${PWD}[test]" "pytest==$pytest"
        run_pytest "$at" --require-features=all "${SELECTION[@]}" ||
            failed+=("$version/$pytest")
    done
done < <(sed -n '1p;$p' "$WORK/pythons" | uniq)
[[ ${#failed[@]} -eq 0 ]] || die "failed: ${failed[*]}"
