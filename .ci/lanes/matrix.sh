# The corners, by tox: the oldest and newest CPython of this machine with the oldest and newest pytest.
# Oldest with oldest runs nearly all tests, as the lane readme runs all with the newest pytest: not those of images,
# nor of endurance, which take minutes. Newest with newest leaves out those of sandboxes, which know no pytest, and
# those with other plugins. What a new pytest asks of an old CPython, or the other way round, is a matter of what
# deals with pytest's own objects.
set -euo pipefail

PYTESTS=(84 92)
ALL=(tests/unit tests/plugin)
LONG=(tests/plugin/test_{any_root,endurance,image_cli,images,runtimes}.py)
BELOW=(
    tests/plugin/test_{any_root,artifacts,cli,endurance,image_cli,limits,missing,pool,sandbox}.py
    tests/plugin/test_{baseline,escapes,hosts,isolated_network,levels,network_watch,ports,private_network,strict,verify}.py
    tests/plugin/third_party
)
MIXED=(tests/unit tests/plugin/test_{fidelity,fixtures,hooks,hooks_order,junit,output,reports}.py)

# corner VERSION PYTHON PYTEST ARGUMENT…: tox finds interpreters on PATH only; those of pyenv are not there.
corner() {
    local name=py${1/./}-pytest$3 python=$2
    shift 3
    say "tox -e $name -- $*"
    timeout --kill-after=30s "$PYTEST_LIMIT" \
        "$WORK/tox/bin/tox" run --discover "$python" -e "$name" -- -p no:cacheprovider -n 2 "$@" < /dev/null ||
        failed+=("$name")
}

clone "$WORK/matrix"
cd "$WORK/matrix"
environment "$WORK/tox" "$SYSTEM_PYTHON" tox
pythons > "$WORK/pythons"
[[ -s $WORK/pythons ]] || die "no CPython from 3.10 to 3.13 on this machine; apt-get install python3-venv"
read -r oldest oldest_python < <(head -n 1 "$WORK/pythons")
read -r newest newest_python < <(tail -n 1 "$WORK/pythons")
failed=()
corner "$oldest" "$oldest_python" "${PYTESTS[0]}" "${ALL[@]}" "${LONG[@]/#/--ignore=}"
if [[ $oldest != "$newest" ]]; then
    corner "$oldest" "$oldest_python" "${PYTESTS[-1]}" "${MIXED[@]}"
    corner "$newest" "$newest_python" "${PYTESTS[0]}" "${MIXED[@]}"
    corner "$newest" "$newest_python" "${PYTESTS[-1]}" "${ALL[@]}" "${BELOW[@]/#/--ignore=}"
fi
[[ ${#failed[@]} -eq 0 ]] || die "failed: ${failed[*]}"
