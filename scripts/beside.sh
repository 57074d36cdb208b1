#!/usr/bin/env bash
# Runs scripts/setup.sh, which waits for the network, beside a command, which computes. Usage: scripts/beside.sh "WORDS" COMMAND...
# Ends when both have ended. If one fails, or this script is ended, the other is ended too; set-up then first finishes the step
# that it is in, since a package that is half installed is in the way of the next time.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A group of its own: ending it ends every compiler in it.
set -m
"${@:2}" &
command=$!
set +m
# In the terminal's group, so that sudo may ask; and with Ctrl-C, to which a script's background commands are deaf otherwise.
read -ra words <<<"$1"
env --default-signal=INT,QUIT scripts/setup.sh "${words[@]}" &
setup=$!

end() {
    kill -- "-$command" 2>/dev/null
    kill "$setup" 2>/dev/null
    wait
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

ended_well() { # name status
    (($2 == 0)) && return
    printf 'beside: error: %s failed; what it said stands above\n' "$1" >&2
    exit "$2"
}
wait -n -p first "$command" "$setup"
status=$?
if [[ $first == "$setup" ]]; then
    ended_well "set-up" "$status"
    wait "$command"
    ended_well "${*:2}" $?
else
    ended_well "${*:2}" "$status"
    wait "$setup"
    ended_well "set-up" $?
fi
trap - EXIT
