#!/usr/bin/env bash
# `make arm64`: the function for arm64, built and run on an x86_64 Debian whose Rust has no library for aarch64.
#
# Debian's archive has that library for Debian's own compiler, of sid. So compiler, C library and QEMU come out of it into a root
# of their own below .tools/arm64/, which nothing else uses, and scripts/build-function.sh, which `make deploy` calls, takes its
# cargo from there (scripts/arm64-cargo.sh), with cargo-lambda. What it builds then answers events, under emulation.
#
#   PANOREC_PROFILE   Cargo profile, `dist` if not given
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly HERE=$PWD WORK=$PWD/.tools/arm64
readonly ROOT=$WORK/root TOOLS=$WORK/tools FUNCTION=$WORK/function/bootstrap
readonly REQUIREMENTS=scripts/arm64-requirements.txt
readonly PACKAGES=(base-files bash cargo coreutils gcc libc6-dev libc6:arm64 libgcc-s1:arm64 libstd-rust-dev:amd64
    libstd-rust-dev:arm64 qemu-user rustc)

say() { printf 'arm64: %s\n' "$*" >&2; }
die() {
    printf 'arm64: error: %s\n' "$1" >&2
    shift
    if (($#)); then printf '       %s\n' "$@" >&2; fi
    exit 1
}

# Where this machine gets Debian from: the archive of its own release, neither updates nor what others add.
mirror() {
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
        awk '$1 == "Debian" && $2 !~ /-/ { print $3; exit }'
}

# apt-get in a root of its own, as for the layers (layers/chromium/fetch.sh): no privilege, nothing of the system is touched.
apt() {
    apt-get -q -y -o APT::Architecture=amd64 -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 \
        -o APT::Install-Recommends=false -o APT::Sandbox::User=root -o Acquire::Retries=3 \
        -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o Dir::State="$WORK/apt/state" -o Dir::State::status="$WORK/apt/status" -o Dir::Cache="$WORK/apt/cache" \
        -o Dir::Etc::sourcelist="$WORK/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null "$@" </dev/null >"$WORK/apt.log" 2>&1
}

make_root() {
    local from package
    from=$(mirror)
    [[ $from ]] || die "apt knows no archive of Debian" "run apt-get update, and this again, on Debian or in a container of it"
    say "fetching Rust, a linker and QEMU of Debian sid, 370 MB, into ${ROOT#"$HERE/"}"
    rm -rf "$WORK/apt" "$ROOT" "$ROOT.new"
    mkdir -p "$WORK"/apt/{state/lists/partial,cache/archives/partial} "$ROOT.new"
    : >"$WORK/apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $from sid main" >"$WORK/apt/sources.list"
    if ! apt update || ! apt install --download-only "${PACKAGES[@]}"; then
        die "apt-get could not fetch them" "$(tail -n 5 "$WORK/apt.log")" \
            "sid changes every day, and now and then one architecture is ahead of the other: then try again tomorrow"
    fi
    for package in "$WORK"/apt/cache/archives/*.deb; do dpkg-deb -x "$package" "$ROOT.new"; done
    # What the packages' scripts would have made.
    ln -sf bash "$ROOT.new/usr/bin/sh"
    ln -sf gcc "$ROOT.new/usr/bin/cc"
    rm -rf "$WORK/apt"
    mv "$ROOT.new" "$ROOT"
}

make_tools() {
    local python=python3
    "$python" -m pip --version >/dev/null 2>&1 || python=/usr/bin/python3
    say "fetching cargo-lambda"
    rm -rf "$TOOLS" "$TOOLS.new"
    PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore "$python" -m pip install --quiet --no-input \
        --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes --no-compile \
        --target "$TOOLS.new" -r "$REQUIREMENTS" >&2 </dev/null ||
        die "pip could not fetch cargo-lambda" "what pip said stands above; the hashes are in $REQUIREMENTS"
    cp "$REQUIREMENTS" "$TOOLS.new/requirements"
    mv "$TOOLS.new" "$TOOLS"
}

build() {
    cargo fetch --quiet --locked --target x86_64-unknown-linux-gnu --target aarch64-unknown-linux-gnu
    CARGO=$HERE/scripts/arm64-cargo.sh ARCHITECTURE=arm64 ARTIFACTS_DIR=$WORK/function scripts/build-function.sh >&2
    # e_machine of the ELF header: 183 is AArch64.
    (($(od -An -j18 -N2 -tu2 "$FUNCTION") == 183)) || die "${FUNCTION#"$HERE/"} is not for arm64"
}

# The function's answer to an event, by QEMU, with the C library of that root. It wants programs for recording, and runs none.
answers() { # event, what must be in the answer
    local answer
    answer=$(PANOREC_CHROMIUM=/bin/false PANOREC_FFMPEG=/bin/false \
        "$ROOT/usr/bin/qemu-aarch64" -L "$ROOT" "$FUNCTION" invoke "events/$1" --data "$data") ||
        die "the function did not answer events/$1 under emulation"
    [[ $answer == *"$2"* ]] || die "the function answered events/$1 by $answer" "and $2 is not in that"
    say "events/$1: $answer"
}

[[ $(uname -m) == x86_64 ]] || die "this is for x86_64" "on arm64 itself, make dist and make layers do all of this"
mkdir -p "$WORK"
if [[ ! -d $ROOT ]]; then make_root; fi
if ! cmp -s "$REQUIREMENTS" "$TOOLS/requirements"; then make_tools; fi
build
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT
answers list.json '"Tasks'
answers error-bitrate.json InvalidParam
say "built, and answers: ${FUNCTION#"$HERE/"}, $(stat -c %s "$FUNCTION") bytes"
