# One wheel serves every CPython, and its users need no compiler; the sdist asks for one by name.
set -euo pipefail

TOOLS=$WORK/tools
DIST=$WORK/dist

# hide_compilers: fill TOOLS, a stand-in for PATH, with every command but the compilers.
hide_compilers() {
    mkdir -p "$TOOLS"
    find /usr/bin /usr/sbin -maxdepth 1 ! -type d |
        grep -vE '/([^/]*-)?(cc|c[89]9|c\+\+|gcc|g\+\+|clang|clang\+\+|tcc)(-[0-9.]+)?$' |
        xargs ln --symbolic --force --target-directory="$TOOLS"
    if PATH=$TOOLS bash -c 'command -v cc gcc clang'; then die "a compiler is still reachable"; fi
}

# build: one sdist, and one wheel built from that sdist.
build() {
    clone "$WORK/wheel"
    environment "$WORK/build" "$SYSTEM_PYTHON" build
    logged "$WORK/build/bin/python" -m build --outdir "$DIST" "$WORK/wheel"
    ls "$DIST"
    WHEEL=$(echo "$DIST"/*.whl)
    SDIST=$(echo "$DIST"/*.tar.gz)
    [[ -f $WHEEL && -f $SDIST ]] || die "expected one wheel and one sdist"
    [[ $WHEEL == *-abi3-* ]] || die "${WHEEL##*/} is for one version of CPython only"
}

# try_installed NAME PYTHON PATH PACKAGE: PACKAGE installs, finds its machine fit, runs the examples.
try_installed() {
    local at=$WORK/installed-$1
    say "$1: ${4##*/} in $("$2" --version)"
    mkdir "$at"
    PATH=$3 environment "$at/environment" "$2" "$4"
    cp -r "$WORK/wheel/examples" "$at"
    cd "$at"
    PATH=$3 "$at/environment/bin/pytest-isolate" doctor
    PATH=$3 run_pytest "$at/environment" --isolate-all examples
}

# refuse_without_compiler: building the sdist without a compiler fails and says what to install.
refuse_without_compiler() {
    say "no compiler: ${SDIST##*/} must refuse to build"
    if PATH=$TOOLS "$WORK/build/bin/pip" wheel --no-deps --wheel-dir "$WORK" "$SDIST" \
        > "$WORK/refused.log" 2>&1; then
        die "it was built"
    fi
    grep -m 1 'install.*\bgcc\b' "$WORK/refused.log" || {
        cat "$WORK/refused.log"
        die "the error does not say to install gcc"
    }
}

hide_compilers
build
refuse_without_compiler
pythons > "$WORK/pythons"
while read -r version python; do
    try_installed "wheel-$version" "$python" "$TOOLS" "$WHEEL"
done < "$WORK/pythons"
try_installed sdist "$SYSTEM_PYTHON" "$PATH" "$SDIST"
