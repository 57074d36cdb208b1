#!/usr/bin/env bash
# Fetches and unpacks the Debian packages of the layer. Usage: fetch.sh ARCHITECTURE WORK
#
# ARCHITECTURE is Debian's word (amd64, arm64) and need not be this machine's: nothing fetched is run. WORK gets `debs/`
# (kept from run to run) and `stage/` (the packages' files). apt-get works in a root of its own below WORK with this
# machine's sources, needs no privilege and touches nothing of the system.
#
#   pins-ARCHITECTURE.txt   name=version sha256 of every package; a package that is not exactly that is refused
#   UNPINNED=allowed        where a pinned version has been superseded, take the one that apt offers and say so
#   PIN=FILE                take what apt offers and write the pins for it (see ../pin.sh)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly ARCHITECTURE=$1 WORK=$2 # an absolute path
readonly PINS=pins-$ARCHITECTURE.txt

say() { printf 'layer: %s\n' "$*" >&2; }
die() {
    printf 'layer: error: %s\n' "$1" >&2
    shift
    if (($#)); then printf '       %s\n' "$@" >&2; fi
    exit 1
}

names() { sed -E 's/#.*//; /^\s*$/d' packages.txt; }
pins() { sed -E 's/#.*//; /^\s*$/d' "$PINS"; }

apt_root=$WORK/apt-$ARCHITECTURE
apt() {
    local tool=$1
    shift
    "$tool" -q -o APT::Architecture="$ARCHITECTURE" -o APT::Architectures="$ARCHITECTURE" -o Acquire::Languages=none \
        -o Dir::State="$apt_root/state" -o Dir::State::status="$apt_root/status" -o Dir::Cache="$apt_root/cache" \
        -o APT::Sandbox::User=root -o Acquire::Retries=3 "$@" </dev/null
}

update() {
    mkdir -p "$apt_root/state/lists/partial" "$apt_root/cache/archives/partial"
    : >"$apt_root/status"
    # One source of many may fail; whether the packages are there is seen when they are asked for.
    apt apt-get update >"$apt_root/update.log" 2>&1 || say "apt-get update complained, see $apt_root/update.log"
}

# Every known version of a package, as name=version.
known() { apt apt-cache madison "$@" 2>/dev/null | awk -F' *[|] *' '{ gsub(/^ +/, "", $1); print $1 "=" $2 }' | sort -u; }
# The version of each package that apt would install, as name=version.
offered() {
    # shellcheck disable=SC2046 # names have no spaces
    apt apt-cache policy $(names) 2>/dev/null | awk '/^[^ ].*:$/ { n = $1; sub(/:$/, "", n) } /^ *Candidate:/ { print n "=" $2 }'
}

superseded() {
    local message=("a pinned package is no longer to be had: ${*}"
        "Debian drops a version when its successor arrives. To pin what is offered now, and to look at the difference:"
        "    layers/pin.sh $ARCHITECTURE && git diff layers/chromium/$PINS"
        "(the pins are for Debian bookworm: on another release, run this in a container of that one)")
    if [[ ${UNPINNED-} != allowed ]]; then die "${message[@]}"; fi
    say "a pinned package is no longer to be had: ${*}"
    say "UNPINNED=allowed: taking what is offered instead; pin it with layers/pin.sh $ARCHITECTURE before a release"
}

# Sets `wanted`: name=version of each package.
wanted=()
choose() {
    if [[ -n ${PIN-} ]]; then
        mapfile -t wanted < <(offered)
    else
        local missing
        mapfile -t wanted < <(pins | cut -d' ' -f1)
        # shellcheck disable=SC2046
        missing=$(comm -23 <(printf '%s\n' "${wanted[@]}" | sort) <(known $(names)))
        if [[ -n $missing ]]; then
            # shellcheck disable=SC2086
            superseded $missing
            mapfile -t wanted < <(offered)
        fi
    fi
    local count
    count=$(names | wc -l)
    if ((${#wanted[@]} != count)) || printf '%s\n' "${wanted[@]}" | grep -q '=(none)$'; then
        die "apt knows ${#wanted[@]} of $count packages for $ARCHITECTURE" "is this machine's package source Debian bookworm?"
    fi
}

# A file that apt-get would name for name=version; colons of epochs are escaped there.
file_of() { printf '%s/%s_%s_*.deb' "$WORK/debs" "${1%%=*}" "$(sed 's/:/%3a/' <<<"${1#*=}")"; }

download() {
    local package missing=()
    mkdir -p "$WORK/debs"
    for package in "${wanted[@]}"; do
        compgen -G "$(file_of "$package")" >/dev/null || missing+=("$package")
    done
    if ((${#missing[@]} == 0)); then return; fi
    say "fetching ${#missing[@]} packages for $ARCHITECTURE"
    (cd "$WORK/debs" && apt apt-get download "${missing[@]}" >"$apt_root/download.log" 2>&1) ||
        die "apt-get could not download" "$(tail -n 3 "$apt_root/download.log")"
}

# What was kept from an earlier run is looked at as closely as what was just fetched.
verify() { # name=version sha256
    local package=$1 expected=$2 actual
    # shellcheck disable=SC2086 # a pattern
    actual=$(sha256sum $(file_of "$package") | cut -d' ' -f1)
    if [[ $actual != "$expected" ]]; then
        # shellcheck disable=SC2086
        rm -f $(file_of "$package")
        die "$package is not what was pinned: sha256 $actual instead of $expected" "it was removed; run this again"
    fi
}

main() {
    command -v dpkg-deb apt-get apt-cache >/dev/null || die "apt-get and dpkg-deb are needed: run this on Debian, or in a container of it"
    update
    choose
    download
    local package line
    if [[ -n ${PIN-} ]]; then
        for package in "${wanted[@]}"; do
            # shellcheck disable=SC2046
            printf '%s %s\n' "$package" "$(sha256sum $(file_of "$package") | cut -d' ' -f1)"
        done | sort >"$PIN"
        return
    fi
    while read -r line; do
        package=${line%% *}
        if [[ " ${wanted[*]} " == *" $package "* ]]; then verify "$package" "${line##* }"; fi
    done < <(pins)
    rm -rf "$WORK/stage"
    mkdir -p "$WORK/stage"
    for package in "${wanted[@]}"; do
        # shellcheck disable=SC2046
        dpkg-deb -x $(file_of "$package") "$WORK/stage"
    done
}

main
