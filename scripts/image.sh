#!/usr/bin/env bash
# `make image`: builds the container image and records the demo page with it, as a function would: nobody's user, the root
# read-only, /tmp in memory. Needs Python, and one of the programs that build images; neither Rust nor Chromium.
#
#   ENGINE   docker, podman or buildah, with options of its own divided at blanks; default: the first that answers
#   IMAGE    name of the image, default panorec
#   ARGS     more options of the build, divided at blanks
#   OUTPUT   the recording, default recordings/image.mp4
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { printf 'image: error: %s\n' "$*" >&2; exit 1; }

image=${IMAGE:-panorec}
output=${OUTPUT:-recordings/image.mp4}
read -ra more <<<"${ARGS:-}"
read -ra engine <<<"${ENGINE:-}"
for candidate in docker podman buildah; do
    # A docker without its daemon is none.
    if ((${#engine[@]} == 0)) && "$candidate" info >/dev/null 2>&1; then engine=("$candidate"); fi
done
((${#engine[@]})) || die "neither docker nor podman nor buildah answers here; install one (apt-get install podman), or name yours in ENGINE"

case ${engine[0]##*/} in
    # With attestations beside it an image is a list of manifests, which Lambda refuses.
    docker) export BUILDX_NO_DEFAULT_ATTESTATIONS=1 ;;
    buildah) more+=(--layers) ;; # as the others do of themselves: what has not changed is not built again
esac
echo "image: building $image with ${engine[*]}; the first time takes minutes" >&2
"${engine[@]}" build --tag "$image" "${more[@]}" .
"${engine[@]}" images "$image"

server=
container=
out=$(mktemp -d)
chmod 777 "$out" # the user inside is none of ours
end() {
    if [[ $server ]]; then kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true; fi
    if [[ $container ]]; then "${engine[@]}" rm "$container" >/dev/null || true; fi
    rm -rf "$out"
}
trap end EXIT
# A Ctrl-C reaches the recorder too, which ends; this script ends as usual then.
trap : INT TERM

# The demo without its video, which is FFmpeg's to make.
exec {address}< <(exec setpriv --pdeathsig KILL python3 -u -m http.server 0 --bind 127.0.0.1 --directory demo 2>/dev/null)
server=$!
read -r -u "$address" line || die "the demo's server did not start"
url=${line#*(} url=${url%%)*}

record=(record "$url" --output /out/image.mp4 --duration 5s --allow-address 127.0.0.0/8)
echo "image: 5s of $url" >&2
case ${engine[0]##*/} in
    buildah)
        container=$("${engine[@]}" from "$image")
        "${engine[@]}" run --network host --volume "$out:/out" "$container" -- /usr/local/bin/panorec "${record[@]}"
        ;;
    *)
        "${engine[@]}" run --rm --network host --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
            --volume "$out:/out:z" "$image" "${record[@]}"
        ;;
esac
mkdir -p "$(dirname "$output")"
cp "$out/image.mp4" "$output"
echo "image: the recording is $output" >&2
# Whoever has recorded with `make record` has what judges a file by its content.
if [[ -x target/release/examples/judge ]]; then target/release/examples/judge "$output"; fi
