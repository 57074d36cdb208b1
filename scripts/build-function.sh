#!/usr/bin/env bash
# Builds the function for `sam build` (target build-RecorderFunction of the Makefile) into $ARTIFACTS_DIR/bootstrap.
#
#   ARCHITECTURE     x86_64 or arm64; this machine's if not given
#   PANOREC_PROFILE  Cargo profile, `dist` if not given
#
# cargo-lambda (pip install cargo-lambda) links against an old glibc and for either architecture, from any machine. Without it
# plain cargo builds for this machine, and what comes out is refused if it asks for a newer glibc than Amazon Linux 2023 has.
set -euo pipefail
# `sam build` shows what is said on standard output and keeps the other one for failures; cargo's progress takes minutes.
exec 3>&2 2>&1
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Amazon Linux 2023, which provided.al2023 is.
readonly GLIBC=2.34

die() {
    printf 'build-function: error: %s\n' "$1" >&3
    shift
    if (($#)); then printf '                %s\n' "$@" >&3; fi
    exit 1
}

[[ -n ${ARTIFACTS_DIR:-} ]] || die "ARTIFACTS_DIR is not set" "run \`sam build\`, or set it to a directory for the program"
here=$(uname -m)
[[ $here == aarch64 ]] && here=arm64
architecture=${ARCHITECTURE:-$here}
profile=${PANOREC_PROFILE:-dist}
case $architecture in
    x86_64) target=x86_64-unknown-linux-gnu ;;
    arm64) target=aarch64-unknown-linux-gnu ;;
    *) die "ARCHITECTURE is '$architecture'" "x86_64 and arm64 are possible" ;;
esac

if "${CARGO:-cargo}" lambda --version >/dev/null 2>&1; then
    "${CARGO:-cargo}" lambda build --profile "$profile" --locked --bin panorec --target "$target"
    built=target/lambda/panorec/bootstrap
else
    [[ $architecture == "$here" ]] || die "plain cargo builds for this machine ($here) only" "pip install cargo-lambda"
    targets=(--bin panorec)
    # The tests' profile: their targets too, so that nothing is built twice with other features. Alone it takes none of what only
    # tests depend on.
    if [[ $profile == release ]]; then targets+=(--example serve --example judge); fi
    "${CARGO:-cargo}" build --profile "$profile" --locked "${targets[@]}"
    built=target/$profile/panorec
fi

# Names of versions as the dynamic section has them; the newest one asked for decides.
newest=$(grep -aoE 'GLIBC_2\.[0-9]+' "$built" | sort -uV | tail -n 1)
if [[ $(printf 'GLIBC_%s\n%s\n' "$GLIBC" "$newest" | sort -V | tail -n 1) != "GLIBC_$GLIBC" ]]; then
    die "the program needs $newest, and Lambda has glibc $GLIBC" "pip install cargo-lambda, which links against an older one"
fi
mkdir -p "$ARTIFACTS_DIR"
install -m 755 "$built" "$ARTIFACTS_DIR/bootstrap"
