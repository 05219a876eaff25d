# Chosen tests where cgroup v2 is all there is, as root and as a user with a delegated cgroup: one boot
# for each kernel and mode, as many at a time as there are processors.  See tests/vm/README.md.
set -euo pipefail

VM_SELECTION=(-m vm tests/kernel tests/plugin --ignore=tests/plugin/test_levels.py)
# Where a kernel before the newest may differ: what is above it was tried on the newest, and on this machine's.
OLDER=(-m vm tests/kernel tests/plugin/test_{escapes,isolated_network,limits,sandbox}.py)
TIMEOUT=1800 # seconds, for one boot with all its tests
VM=$TREE/tests/vm/vm_run.py

# What is particular to a cgroup one level below the delegated one; and xdist, once for all.
LEAF="cgroups or limits or left or xdist"

# Where nobody may make a user namespace: what is left depends on how much of Landlock a kernel has.
FORBIDDEN=--no-user-namespaces
LEVELS=(-m vm tests/kernel/test_landlock.py tests/plugin/test_levels.py)

# boots: a line "KERNEL MODE…" for each boot.  What --leaf adds is no matter of the kernel's age.
boots() {
    local kernel kernels
    mapfile -t kernels < <("$SYSTEM_PYTHON" "$VM" --list | tac)
    for kernel in "${kernels[@]}"; do
        printf '%s\n' "$kernel" "$kernel --user" "$kernel $FORBIDDEN"
    done
    echo "${kernels[0]} --user --leaf"
}

# boot LOG KERNEL MODE…: one processor, for more slow an emulated machine down.
boot() {
    local log=$1 kernel=$2 mode="${*:3}" chosen="not xdist" selection=("${VM_SELECTION[@]}") before=()
    shift 2
    [[ $kernel == "$NEWEST" ]] || selection=("${OLDER[@]}")
    [[ $mode != *--leaf* ]] || chosen=$LEAF
    if [[ $mode == "$FORBIDDEN" ]]; then
        shift
        selection=("${LEVELS[@]}")
        before=(sh -euc 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"' sh)
    fi
    "$SYSTEM_PYTHON" "$VM" --kernel "$kernel" "$@" --cpus 1 --timeout "$TIMEOUT" "${before[@]}" \
        python -m pytest -p no:cacheprovider --require-features=all --durations=5 "${selection[@]}" \
        -k "$chosen" > "$log" 2>&1 || echo "$kernel $mode" >> "$WORK/vm-failed"
}

need_environment
logged apt-get -qq update # without lists apt cannot tell the mirror, which has the kernels too
"$SYSTEM_PYTHON" "$VM" --install
# Without the plugins that other lanes try: importing them takes 10 s of each run in there.
environment "$WORK/vm" "$SYSTEM_PYTHON" --editable "$TREE" pytest-xdist

cd "$TREE"
export PATH=$WORK/vm/bin:/usr/sbin:/usr/bin TEST_TIME_SCALE=25
# Python is 25 times slower in there, so that test modules are compiled out here.
logged run_pytest "$WORK/vm" -q --collect-only "${VM_SELECTION[@]}"

# Each boot is a process group, to be ended as one when the lane is.
set -m
trap 'jobs -p | sed s/^/-/ | xargs --no-run-if-empty kill --' EXIT
: > "$WORK/vm-failed"
boots > "$WORK/boots"
read -r NEWEST _ < "$WORK/boots"
while read -ra words; do
    while [[ $(jobs -pr | wc -l) -ge $(nproc) ]]; do wait -n; done
    say "booting Linux ${words[*]}"
    boot "$WORK/vm-${words[*]}.log" "${words[@]}" &
done < "$WORK/boots"
wait
while read -r words; do
    say "Linux $words"
    cat "$WORK/vm-$words.log"
done < "$WORK/boots"
[[ ! -s $WORK/vm-failed ]] || die "failed: $(paste -sd, "$WORK/vm-failed")"
