#!/usr/bin/env bash
# Refuses what Lambda would refuse. Usage: check-size.sh FILE-OR-DIRECTORY...
#
# The sum is what a function and its layers take unzipped; where several builds of the function are named, the first counts.
set -euo pipefail

readonly LIMIT=262144000 # Lambda: "250 MB unzipped, including layers"
sum=0 function=
for path in "$@"; do
    if [[ -f $path ]]; then
        if [[ -n $function ]]; then continue; fi
        function=$path
    fi
    bytes=$(find "$path" -type f -printf '%s\n' | awk '{ s += $1 } END { print s + 0 }')
    printf 'size: %12d  %s\n' "$bytes" "$path" >&2
    sum=$((sum + bytes))
done
printf 'size: %12d of %d\n' "$sum" "$LIMIT" >&2
if [[ -z $function ]]; then echo "size: the function itself is not built yet; make dist, or make arm64" >&2; fi
if ((sum > LIMIT)); then
    echo "size: error: $((sum - LIMIT)) bytes too many; take something out of layers/chromium/tree.py" >&2
    exit 1
fi
