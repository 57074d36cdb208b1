#!/usr/bin/env bash
# Runs the tests, which have been built. Those end to end wait for recordings most of the time; the others compute beside
# them, at a lower priority, and are shown when both are over.
set -u -m
cd "$(dirname "$0")/.."
readonly TEST=("${CARGO:-cargo}" test --release --locked)
# A line of a failure, in short.
readonly SHORT=600
said=$(mktemp) e2e_said=$(mktemp)
targets=(--lib)
for main in tests/*/main.rs; do
    target=$(basename "${main%/main.rs}")
    [[ $target == e2e ]] || targets+=(--test "$target")
done

nice -n 10 "${TEST[@]}" --no-fail-fast "${targets[@]}" >"$said" 2>&1 &
others=$!
# A group of its own (-m), so that whatever ends this script ends them all.
trap 'kill -- "-$others" 2>/dev/null; rm -f "$said" "$e2e_said"' EXIT

# More threads than processors: most of them wait for their turn.
"${TEST[@]}" --test e2e -- --test-threads 4 > >(tee "$e2e_said") 2>&1
e2e=$?
((e2e < 128)) || exit "$e2e" # interrupted
wait "$others"
rest=$?
cat "$said"
# Once more, after all that went well, and last of all in short.
failures() { sed -n '/^failures:$/,/^test result/p' "$1"; }
((rest == 0)) || failures "$said"
((e2e == 0)) || failures "$e2e_said"
failures <(cat "$said" "$e2e_said") | grep -A 3 "panicked at" | cut -c "-$SHORT"
exit $((e2e ? e2e : rest))
