#!/usr/bin/env bash
# Cargo of Debian sid with cargo-lambda, in the root that scripts/build-arm64.sh has made, for scripts/build-function.sh:
# `make deploy ARCHITECTURE=arm64 CARGO=$PWD/scripts/arm64-cargo.sh` deploys what `make arm64` has tried.
#
# Sees that root, this repository and cargo's own directory, and no network: `make arm64` has fetched what Cargo.lock names.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$here/.tools/arm64
cargo_home=${CARGO_HOME:-$HOME/.cargo}
if [[ ! -d $work/root || ! -d $work/tools ]]; then
    echo "arm64-cargo: error: ${work#"$here/"} is not made yet; run: make arm64" >&2
    exit 1
fi
mkdir -p "$work/home"
exec bwrap --unshare-net --unshare-pid --die-with-parent --clearenv \
    --ro-bind "$work/root/usr" /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 \
    --dev /dev --proc /proc --tmpfs /tmp \
    --bind "$here" "$here" --bind "$cargo_home" "$cargo_home" --chdir "$here" \
    --setenv PATH "$work/tools/bin:$work/tools/ziglang:/usr/bin" --setenv HOME "$work/home" \
    --setenv CARGO_HOME "$cargo_home" --setenv CARGO_NET_OFFLINE true cargo "$@"
