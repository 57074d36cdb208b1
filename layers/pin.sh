#!/usr/bin/env bash
# Pins the Debian packages of the Chromium layer to what apt offers now. Usage: layers/pin.sh [amd64] [arm64]
#
# Rewrites layers/chromium/pins-*.txt, of both architectures without an argument, with the checksums that the archive signs;
# nothing is fetched but its index. Look at the difference, `make test` (the jail runs what is pinned), commit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

for architecture in "${@:-amd64 arm64}"; do
    for one in $architecture; do
        mkdir -p "../.tools/layers/$one"
        work=$(cd "../.tools/layers/$one" && pwd)
        PIN=$work/pins.new chromium/fetch.sh "$one" "$work"
        {
            echo "# Debian bookworm, $one: name=version and sha256 of each package. Written by layers/pin.sh."
            cat "$work/pins.new"
        } >"chromium/pins-$one.txt"
        rm "$work/pins.new"
    done
done
