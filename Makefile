# panorec: make help lists what can be made. Each target installs what it needs first (scripts/setup.sh).

SHELL := /bin/bash
.SHELLFLAGS := -euc
.DEFAULT_GOAL := help

CARGO ?= cargo
# The static FFmpeg that scripts/setup.sh fetched, unless the caller names another.
export PANOREC_FFMPEG ?= $(CURDIR)/.tools/ffmpeg
export PANOREC_FFPROBE ?= $(CURDIR)/.tools/ffprobe

.PHONY: help
help: ## list the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 18

.PHONY: setup
setup: ## install what is missing: linker, Chromium, fonts, a static FFmpeg
	@scripts/setup.sh build run

.PHONY: build
build: setup ## build target/release/panorec
	$(CARGO) build --release --locked --bin panorec

.PHONY: dist
dist: setup ## build target/dist/panorec, the smallest and fastest, in minutes
	$(CARGO) build --profile dist --locked --bin panorec

# As `sam build` makes them. ARCH=arm64 works on any machine: nothing of them is run.
HERE = $(shell dpkg --print-architecture)
ARCH ?= $(HERE)
FUNCTION = $(if $(filter $(HERE),$(ARCH)),target/dist/panorec target/release/panorec,.tools/$(ARCH)/function/bootstrap)
.PHONY: layers
layers: ## build the layers of a function into .tools/layers/release-ARCH and check their size with it
	rm -rf .tools/layers/release-$(ARCH)
	$(MAKE) -s -C layers/chromium build-ChromiumLayer ARCH=$(ARCH) \
		ARTIFACTS_DIR=$(CURDIR)/.tools/layers/release-$(ARCH) WORK=$(CURDIR)/.tools/layers/chromium-$(ARCH)
	$(MAKE) -s -C layers/ffmpeg build-FfmpegLayer ARCH=$(ARCH) \
		ARTIFACTS_DIR=$(CURDIR)/.tools/layers/release-$(ARCH) WORK=$(CURDIR)/.tools/layers/ffmpeg-$(ARCH)
	layers/check-size.sh .tools/layers/release-$(ARCH) $(wildcard $(FUNCTION))

# Needs nothing of rustup: the library for arm64 is Debian's.
.PHONY: arm64
arm64: ## on x86_64: build function and layers for arm64, check their size and have the function answer, under emulation
	@scripts/setup.sh build arm64
	@scripts/build-arm64.sh
	@$(MAKE) --no-print-directory layers ARCH=arm64

# SECONDS is special to bash (it counts), so it travels under another name.
.PHONY: record
record: ## record the demo page for 10 s; URL=... SECONDS=... OUTPUT=... ARGS="--fps 60 ..." override
	@scripts/setup.sh build
	@scripts/beside.sh run $(CARGO) build --release --locked --bin panorec --example serve --example judge
	@RECORD_SECONDS="$(SECONDS)" scripts/record.sh

# Everything in one profile, the one that ships. Clippy and rustdoc only need the metadata of dependencies and share it;
# build scripts and proc macros are built once for all commands; a dev profile beside it would build them, and
# everything the tests run, twice, which on 2 cores costs more than the optimiser does. Naming the examples makes rustdoc
# resolve features with the tests' dependencies: without them it checked most crates once more, for two minutes.
.PHONY: test
test: ## format, lints, documentation, then unit, integration and end-to-end tests
	@scripts/setup.sh build
	@scripts/beside.sh "run test" $(MAKE) --no-print-directory checked-and-built
	@CARGO="$(CARGO)" scripts/run-tests.sh

# What `make test` does while it fetches; not for people.
.PHONY: checked-and-built
checked-and-built:
	$(CARGO) fmt --check
	$(CARGO) clippy --release --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --no-deps --document-private-items --lib --examples
	$(CARGO) test --release --locked --no-run # with the examples, which `sam build` would build in a test

# Without a sanitizer cargo-fuzz works with the toolchain that is there: what is fuzzed has no unsafe code of its own.
FUZZ_SECONDS ?= 60
.PHONY: fuzz
fuzz: setup ## give the event parser any bytes, for FUZZ_SECONDS=60; the first build takes minutes
	@scripts/setup.sh fuzz
	@mkdir -p fuzz/corpus/event
	.tools/bin/cargo-fuzz run --sanitizer none event fuzz/corpus/event fuzz/seeds events -- \
		-dict=fuzz/event.dict -max_len=4096 -max_total_time=$(FUZZ_SECONDS)

.PHONY: soak
soak: setup ## what takes long: 10 min of recording, 10 min into a bucket, 20 hand-overs, 50 kills, a bucket away, 50 jailed recordings, 10 simulated hours
	@scripts/setup.sh test
	PANOREC_SOAK=1 $(CARGO) test --release --locked --test e2e -- --nocapture soak:: relay:: crashes:: outage:: jail:: service::the_same
	PANOREC_SOAK=1 $(CARGO) test --release --locked --lib -- --nocapture generation::tests::hours

.PHONY: bench
bench: setup ## compare with Xvfb + PulseAudio + ffmpeg x11grab; ARGS="--rounds 1 --pages static ..." narrow it
	@scripts/setup.sh bench
	$(CARGO) build --release --locked --bin panorec --example serve --example judge
	@python3 tests/bench $(ARGS)

.PHONY: bench-service
bench-service: setup ## what the service costs its callers while it records: latencies, start-up, size
	@scripts/setup.sh test
	$(CARGO) build --release --locked --bin panorec --example serve
	@python3 tests/bench/service.py $(ARGS)

.PHONY: bench-relay
bench-relay: setup ## what the overlap of two invocations costs; ARGS="--rounds 1 --pages static ..." narrow it
	$(CARGO) build --release --locked --bin panorec --example serve
	@python3 tests/bench/relay.py $(ARGS)

# In each round an environment is made, starts cold, and then warm twice. OTHER=FILE: another build of the function, by turns.
ROUNDS ?= 5
.PHONY: bench-jail
bench-jail: setup ## starts and a class page with a small function's share, in the jail; ROUNDS=5, OTHER=target/old/panorec, ARGS=jail::one
	@scripts/setup.sh test
	PANOREC_BENCH=$(ROUNDS) $(if $(OTHER),PANOREC_BENCH_OTHER=$(abspath $(OTHER))) \
		$(CARGO) test --release --locked --test e2e -- --nocapture --test-threads 1 $(or $(ARGS),jail::one jail::a_small)

.PHONY: bench-delivery
bench-delivery: setup ## from Stop to the file in a bucket, after ten seconds and after six hours: time, bytes read back, memory
	@scripts/setup.sh test
	PANOREC_BENCH=1 $(CARGO) test --release --locked --test aws -- --nocapture delivery::

.PHONY: profile
profile: setup ## split panorec's CPU by process and thread; ARGS="--pages animation" narrows it
	$(CARGO) build --release --locked --bin panorec --example serve --example judge
	@python3 tests/bench --profile $(ARGS)

# Parameters of the template go into ARGS="--guided" or ARGS="--parameter-overrides Endpoint=function-url ...".
ARCHITECTURE ?= $(subst aarch64,arm64,$(shell uname -m))
export ARCHITECTURE
# Whatever else is given: the function must be said to be what it was built for.
OVERRIDE = --parameter-overrides
BUILT_FOR = $(OVERRIDE) Architecture=$(ARCHITECTURE)
.PHONY: deploy
deploy: ## build function and layers and deploy template.yaml; ARGS="--guided" asks, ARCHITECTURE=arm64 needs cargo-lambda
	@scripts/setup.sh build deploy
	SAM_CLI_TELEMETRY=0 .tools/sam/run build --parameter-overrides Architecture=$(ARCHITECTURE)
	layers/check-size.sh .aws-sam/build/RecorderFunction/bootstrap .aws-sam/build/ChromiumLayer .aws-sam/build/FfmpegLayer
	SAM_CLI_TELEMETRY=0 .tools/sam/run deploy $(if $(findstring $(OVERRIDE),$(ARGS)),$(subst $(OVERRIDE),$(BUILT_FOR),$(ARGS)),$(ARGS) $(BUILT_FOR))

.PHONY: image
image: ## build the container image and record with it, by docker, podman or buildah; ENGINE=podman, IMAGE=NAME, ARGS="--platform ..."
	@scripts/image.sh

# What `sam build` calls; not for people.
.PHONY: build-RecorderFunction
build-RecorderFunction:
	@CARGO="$(CARGO)" scripts/build-function.sh

.PHONY: clean
clean: ## remove what was built, fetched and recorded
	$(CARGO) clean
	rm -rf .tools .aws-sam recordings fuzz/target fuzz/corpus fuzz/artifacts
