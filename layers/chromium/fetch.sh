#!/usr/bin/env bash
# Fetches and unpacks the Debian packages of the layer. Usage: fetch.sh ARCHITECTURE WORK
#
# ARCHITECTURE is Debian's word (amd64, arm64) and need not be this machine's: nothing fetched is run. WORK gets `debs/`
# (kept from run to run) and `stage/` (the packages' files). apt-get works in a root of its own below WORK with this
# machine's sources, needs no privilege and touches nothing of the system.
#
#   pins-ARCHITECTURE.txt   name=version sha256 of every package, as they were tested
#   PINNED=only             refuse where one of them is no longer to be had. Otherwise what Debian offers now is taken, against
#                           the checksums that the archive signs, and said: a browser's fixes arrive every week, the pinned
#                           version goes with them, and a build that stops then is one that only its authors can make
#   PIN=FILE                only write the pins of what Debian offers now (see ../pin.sh)
#   DEBIAN_SOURCES=FILE     a sources.list of Debian bookworm, where this machine's is another system's; an absolute path
#
# WORK/packages.txt says what was taken, in the form of the pins.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly ARCHITECTURE=$1 WORK=$2 # an absolute path
readonly PINS=pins-$ARCHITECTURE.txt

# On standard output: `sam build` keeps the other one for failures.
say() { printf 'layer: %s\n' "$*"; }
die() {
    printf 'layer: error: %s\n' "$1" >&2
    shift
    if (($#)); then printf '       %s\n' "$@" >&2; fi
    exit 1
}

names() { sed -E 's/#.*//; /^\s*$/d' packages.txt; }
pins() { sed -E 's/#.*//; /^\s*$/d' "$PINS"; }

apt_root=$WORK/apt-$ARCHITECTURE
sources=()
if [[ -n ${DEBIAN_SOURCES-} ]]; then
    sources=(-o Dir::Etc::sourcelist="$DEBIAN_SOURCES" -o Dir::Etc::sourceparts=/dev/null)
fi
apt() {
    local tool=$1
    shift
    "$tool" -q -o APT::Architecture="$ARCHITECTURE" -o APT::Architectures="$ARCHITECTURE" -o Acquire::Languages=none \
        -o Dir::State="$apt_root/state" -o Dir::State::status="$apt_root/status" -o Dir::Cache="$apt_root/cache" \
        -o APT::Sandbox::User=root -o Acquire::Retries=3 "${sources[@]}" "$@" </dev/null
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

# What the archive says of each package: name=version sha256, from the index whose signature apt has checked.
signed() {
    apt apt-cache show "$@" | awk '/^Package:/ { n = $2 } /^Version:/ { v = $2 } /^SHA256:/ { print n "=" v, $2 }'
}

superseded() {
    if [[ ${PINNED-} == only ]]; then
        die "a pinned package is no longer to be had: ${*}" \
            "Debian drops a version when its successor arrives. To pin what is offered now, and to look at the difference:" \
            "    layers/pin.sh $ARCHITECTURE && git diff layers/chromium/$PINS"
    fi
    say "Debian has replaced what was pinned: ${*}"
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
            mapfile -t wanted < <(offered) # of all, because they belong together
            say "taking what it offers, by the archive's own checksums: $(comm -13 <(pins | cut -d' ' -f1 | sort) \
                <(printf '%s\n' "${wanted[@]}" | sort) | paste -sd' ')"
            say "(what is pinned was tested; PINNED=only insists on it, layers/pin.sh $ARCHITECTURE pins what is offered)"
        fi
    fi
    local count
    count=$(names | wc -l)
    if ((${#wanted[@]} != count)) || printf '%s\n' "${wanted[@]}" | grep -q '=(none)$'; then
        die "apt knows $(printf '%s\n' "${wanted[@]}" | grep -vc '=(none)$') of $count packages for $ARCHITECTURE" \
            "the layer is made of Debian bookworm: build in a container of it, or name a sources.list of it with DEBIAN_SOURCES"
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
    # shellcheck disable=SC2046
    actual=$(sha256sum $(file_of "$package") | cut -d' ' -f1)
    if [[ $actual != "$expected" ]]; then
        # shellcheck disable=SC2046
        rm -f $(file_of "$package")
        die "$package is not what it should be: sha256 $actual instead of $expected" "it was removed; run this again"
    fi
}

# name=version sha256 of each package: as pinned, and as signed where it is not.
checksums() {
    local package sum unpinned=()
    local -A pinned=()
    while read -r package sum; do pinned[$package]=$sum; done < <(pins)
    for package in "${wanted[@]}"; do
        if [[ -n ${pinned[$package]-} ]]; then echo "$package ${pinned[$package]}"; else unpinned+=("$package"); fi
    done
    if ((${#unpinned[@]})); then signed "${unpinned[@]}"; fi
}

main() {
    command -v dpkg-deb apt-get apt-cache >/dev/null || die "apt-get and dpkg-deb are needed: run this on Debian, or in a container of it"
    update
    choose
    if [[ -n ${PIN-} ]]; then
        signed "${wanted[@]}" | sort >"$PIN"
        return
    fi
    download
    local package sum
    checksums | sort >"$WORK/packages.txt"
    if (($(wc -l <"$WORK/packages.txt") != ${#wanted[@]})); then die "some package has no checksum, see $WORK/packages.txt"; fi
    rm -rf "$WORK/stage"
    mkdir -p "$WORK/stage"
    while read -r package sum; do
        verify "$package" "$sum"
        # shellcheck disable=SC2046
        dpkg-deb -x $(file_of "$package") "$WORK/stage"
    done <"$WORK/packages.txt"
}

main
