# The tests as a user without any rights, on this machine as it is: no cgroup is delegated to it, so
# that tests which need one are skipped.  Not those of reports alone: they know no privileges.
set -euo pipefail

SELECTION=(
    tests/kernel tests/plugin
    --ignore=tests/plugin/third_party
    --ignore=tests/plugin/test_{fidelity,hooks_order,junit,output,reporters}.py
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
