#!/usr/bin/env bash
# Makes the demo's video, once: northern lights over a slow chord, drawn by formula. Nothing is downloaded.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

out=media/lights.mp4
if [[ -s $out ]]; then exit 0; fi
ffmpeg=${PANOREC_FFMPEG:-../.tools/ffmpeg}
if ! command -v "$ffmpeg" >/dev/null; then
    echo "make-media: FFmpeg is not at $ffmpeg; install it with: make setup" >&2
    exit 1
fi
mkdir -p media
draft=media/$$.mp4
trap 'rm -f "$draft"' EXIT

# Every term repeats after this, so that the loop has no seam.
seconds=12
w="2*PI*T/$seconds"
# Three ribbons of light, a sun that rises and sinks, hills; x and y run from 0 to 1.
ribbon() { printf "exp(-pow((Y/H-%s-0.13*sin(X/W*%s+%s*%s)-0.05*sin(X/W*9-%s*2))*%s,2))" "$1" "$2" "$3" "$w" "$w" "$4"; }
a=$(ribbon 0.34 5 1 6); b=$(ribbon 0.46 4 -2 7); c=$(ribbon 0.24 6 2 9)
sun="exp(-(pow((X-W*(0.5+0.32*sin($w)))*1.78/W,2)+pow((Y/H-0.52+0.2*cos($w)),2))*160)"
sky="1-0.75*clip((Y/H-0.74-0.05*sin(X/W*7+1)-0.03*sin(X/W*19))*40,0,1)"
# Drawn small and enlarged: there is no detail to lose.
picture="nullsrc=s=160x90:r=25,format=gbrp,geq=r='255*($sky)*min(1,0.05+0.75*$b+0.2*$c+$sun)':g='255*($sky)*min(1,0.05+0.75*$a+0.25*$b+0.8*$sun)':b='255*($sky)*min(1,0.14+0.45*$a+0.65*$b+0.9*$c+0.5*$sun)'"
# A chord of slow swells, below the page's melody.
note() { printf "0.09*sin(2*PI*%s*t)*(0.6+0.4*sin(2*PI*t/%s))" "$1" "$2"; }
left="$(note 110 8)+$(note 165 6)"
right="$(note 110 8)+$(note 131 12)"
"$ffmpeg" -v error -y -f lavfi -i "$picture" -f lavfi -i "aevalsrc='$left|$right':s=48000" -t $seconds \
    -vf "scale=640:360:flags=bicubic,noise=alls=3:allf=t,format=yuv420p" \
    -c:v libx264 -preset veryfast -crf 22 -g 50 -c:a aac -b:a 128k -movflags +faststart "$draft"
mv "$draft" "$out"
