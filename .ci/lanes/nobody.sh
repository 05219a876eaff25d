# The tests as a user without any rights, on this machine as it is: no cgroup is delegated to it, so
# that tests which need one are skipped.  Not those of reports alone: they know no privileges.  And those of
# images once more, with subordinate ids.
set -euo pipefail

SELECTION=(
    tests/kernel tests/plugin
    --ignore=tests/plugin/third_party
    --ignore=tests/plugin/test_{cache,debugger,fidelity,github,hooks,hooks_order,junit,output,reporters,reports}.py
)

need_environment
need_images
cd "$TREE"
export HOME=$WORK/nobody TMPDIR=$WORK/nobody/tmp USER=nobody LOGNAME=nobody
mkdir -p "$TMPDIR"
chown -R 65534:65534 "$HOME"
# shellcheck disable=SC2034 # run_pytest uses it
AS=(setpriv --reuid=65534 --regid=65534 --clear-groups)
run_pytest "$ENVIRONMENT" -n 2 "${SELECTION[@]}"

say "images, with subordinate ids"
echo nobody:100000:65536 > "$WORK/subids" # in the place of both files, in a mount namespace of its own
# shellcheck disable=SC2016
AS=(unshare --mount sh -euc 'mount --bind "$0" /etc/subuid; mount --bind "$0" /etc/subgid; exec "$@"'
    "$WORK/subids" "${AS[@]}")
run_pytest "$ENVIRONMENT" -n 2 tests/unit/test_{image_store,unpack}.py tests/plugin/test_images.py
