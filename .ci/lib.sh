# What the lanes share.  Sourced by .ci/run.

ROOT=$(cd "$CI_DIR/.." && pwd)
# Not /tmp: a virtual machine has its own, and an unprivileged user must get in.
WORK=$(mktemp -d -p /var/tmp pytest-isolate-ci.XXXXXX)
# A copy of the checkout, and an environment in which it is installed: see `need_environment`.
TREE=$WORK/tree
ENVIRONMENT=$WORK/environment
# Not a `python3` on PATH: it may be in a home directory that only its owner can enter.
SYSTEM_PYTHON=/usr/bin/python3
# Images that tests need: the first lane that does builds them, in half a minute each, the others read them.
export TEST_IMAGES=$WORK/images
# One hung test must not use up the time of all lanes.
PYTEST_LIMIT=30m

export DEBIAN_FRONTEND=noninteractive GIT_TERMINAL_PROMPT=0
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
# Without bytecode each of the thousands of runs would compile, and pytest rewrite, all plugins anew.
unset PYTHONDONTWRITEBYTECODE
unset PYTEST_ADDOPTS PYTEST_PLUGINS PYTHONPATH VIRTUAL_ENV CC

say() { printf -- '--- %s\n' "$*"; }

die() {
    printf 'ci: %s\n' "$*" >&2
    exit 1
}

prepare() {
    chmod 755 "$WORK"
    trap clean_up EXIT
    [[ $(id -u) -eq 0 ]] || die "run as root, on a machine or in a container that may be changed"
    # ssh: a worker of pytest-xdist over it, in tests/plugin/third_party.
    # docker-registry, skopeo, openssl: a registry, with and without TLS, in tests of images.
    # busybox-static, mmdebstrap: images of rootfs-images/; uidmap: owners in images without privileges.
    # musl-tools: a root with another C library. crun and runc: tests/plugin/test_runtimes.py.
    need_packages busybox-static crun docker-registry gcc git libc6-dev mmdebstrap musl-tools openssh-client \
        openssh-server openssl python3-dev python3-venv runc skopeo uidmap util-linux
    mkdir --mode=755 "$TEST_IMAGES"
}

clean_up() {
    local code=$?
    # Deleting through a mount that a test left behind would delete what is mounted there.
    if grep -q " $WORK/" /proc/self/mountinfo; then
        grep " $WORK/" /proc/self/mountinfo >&2
        die "a lane left these mounts behind"
    fi
    rm -rf --one-file-system "$WORK"
    exit "$code"
}

# need_packages NAME…: install those that are missing.
need_packages() {
    local name missing=()
    for name; do
        dpkg-query --show --showformat='${Status}' "$name" 2>&1 | grep -q '^install ok installed' ||
            missing+=("$name")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    say "apt-get install ${missing[*]}"
    logged apt-get -qq update
    logged apt-get -qq install --yes --no-install-recommends "${missing[@]}"
}

# logged COMMAND…: run it; show what it prints only if it fails.
logged() {
    "$@" > "$WORK/log" 2>&1 || {
        cat "$WORK/log"
        die "failed: $*"
    }
}

# clone DIRECTORY: a fresh clone of the checkout, with what is not committed yet.
clone() {
    git clone --quiet "$ROOT" "$1"
    git -C "$ROOT" ls-files -z --cached --others --exclude-standard |
        tar -C "$ROOT" --null --files-from=- --ignore-failed-read -c | # a file may be deleted
        tar -C "$1" -x --no-same-owner
}

# environment DIRECTORY PYTHON WHAT…: a virtual environment with WHAT, as for `pip install`.
environment() {
    local directory=$1 python=$2
    shift 2
    "$python" -m venv "$directory"
    logged "$directory/bin/pip" install --upgrade 'pip>=25.1' # the first to know --group
    logged "$directory/bin/pip" install "$@"
}

# need_environment: make TREE and ENVIRONMENT, unless a lane before did.
need_environment() {
    [[ ! -e $ENVIRONMENT.made ]] || return 0
    say "installing the checkout and its tools"
    rm -rf "$TREE" "$ENVIRONMENT"
    clone "$TREE"
    environment "$ENVIRONMENT" "$SYSTEM_PYTHON" --editable "${TREE}[test,docs]" \
        --group "$TREE/pyproject.toml:lint" --group "$TREE/pyproject.toml:types"
    touch "$ENVIRONMENT.made"
}

# need_images: have them, before a lane that has no right to make them.
need_images() {
    local name
    for name in busybox debian-slim python-slim; do
        [[ ! -e $TEST_IMAGES/$name.tar ]] || continue
        say "building the image $name"
        logged "$ENVIRONMENT/bin/pytest-isolate" image build "$TREE/rootfs-images/$name.toml" --missing \
            --store "$TEST_IMAGES/store" --output "$TEST_IMAGES/$name.tar"
    done
}

# run_pytest ENVIRONMENT ARGUMENT…: with AS, an array, before the command (such as setpriv …).
AS=()
run_pytest() {
    local bin=$1/bin
    shift
    PATH=$bin:$PATH timeout --kill-after=30s "$PYTEST_LIMIT" \
        "${AS[@]}" "$bin/python" -m pytest -p no:cacheprovider "$@" < /dev/null
}

# pythons: a line "VERSION PATH" for each CPython from 3.10 to 3.13 of this machine, oldest first.
pythons() {
    local minor python
    for minor in 10 11 12 13; do
        for python in ~/.pyenv/versions/3."$minor".*/bin/python \
            "/usr/bin/python3.$minor" "$(command -v "python3.$minor")"; do
            # Runs it: a version manager's stand-in is on PATH for versions that it does not run.
            if [[ -x $python ]] && "$python" -c 'import venv' 2> /dev/null; then
                echo "3.$minor $python"
                break
            fi
        done
    done
}
