#!/usr/bin/env bash
# `make record`: records the demo page, or URL, and says what came out. Build and set-up are make's business.
#
#   URL             a page to record instead of the demo
#   RECORD_SECONDS  how long (make passes SECONDS on under this name), default 10
#   OUTPUT          the file, default recordings/demo.mp4, or recordings/page.mp4 for a URL
#   ARGS            more options of `panorec record`, divided at blanks
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

url=${URL:-}
seconds=${RECORD_SECONDS:-10}
if [[ ! $seconds =~ ^[0-9]+[a-z]*$ ]]; then
    echo "record: SECONDS is '$seconds'; write a whole number of seconds, or a time like 2m" >&2
    exit 2
fi
if [[ $seconds =~ ^[0-9]+$ ]]; then seconds+=s; fi
read -ra more <<<"${ARGS:-}"

server=
said=$(mktemp)
end() {
    if [[ $server ]]; then kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true; fi
    rm -f "$said"
}
trap end EXIT
# A Ctrl-C reaches the recorder too, which then finishes the file; this script waits for it and ends as usual.
trap : INT TERM

if [[ $url ]]; then
    output=${OUTPUT:-recordings/page.mp4}
else
    output=${OUTPUT:-recordings/demo.mp4}
    demo/make-media.sh
    # Not a command substitution: the server must be this shell's own child, to be ended by its id; should the shell be
    # killed, the kernel ends the server.
    exec {address}< <(exec setpriv --pdeathsig KILL target/release/examples/serve demo)
    server=$!
    read -r -u "$address" url || { echo "record: the demo server did not start" >&2; exit 1; }
    more+=(--allow-address 127.0.0.0/8)
fi

mkdir -p "$(dirname "$output")"
echo "record: $seconds of $url" >&2
status=0
target/release/panorec record "$url" --output "$output" --overwrite --duration "$seconds" --json "${more[@]}" >"$said" || status=$?
if [[ -s $said ]]; then scripts/summary.py "$output" "$said"; fi
exit "$status"
