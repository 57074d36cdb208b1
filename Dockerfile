# The function as a container image, for those who prefer one to layers: the same program, Debian's Chromium and fonts, the
# static FFmpeg that scripts/setup.sh checks against its hash. Debian has the glibc that its Chromium needs, so nothing is
# unpacked at a cold start. `make image` builds it, by docker, podman or buildah, and records with it.

FROM rust:1.95-bookworm AS build
WORKDIR /source
# What is copied is all that a step needs: an edited README compiles nothing again.
COPY scripts/setup.sh scripts/ffmpeg-requirements.txt scripts/
RUN scripts/setup.sh ffmpeg
COPY Cargo.toml Cargo.lock ./
COPY src src
RUN cargo build --profile dist --locked --bin panorec

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates chromium \
        fonts-dejavu-core fonts-liberation fonts-noto-color-emoji fonts-wqy-microhei \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /source/target/dist/panorec /usr/local/bin/panorec
COPY --from=build /source/.tools/ffmpeg /usr/local/bin/ffmpeg
COPY LICENSE-APACHE LICENSE-MIT NOTICE /usr/share/doc/panorec/
COPY layers/ffmpeg/LICENCE /usr/share/doc/ffmpeg/
ENV PANOREC_FFMPEG=/usr/local/bin/ffmpeg HOME=/tmp
# Lambda runs it as a user of its own; elsewhere nobody's will do.
USER 65534
# The program speaks the runtime interface itself (AWS_LAMBDA_RUNTIME_API), which the platform sets; without it, it is the
# command line: docker run panorec record URL --output FILE.
ENTRYPOINT ["/usr/local/bin/panorec"]
