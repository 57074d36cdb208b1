# syntax=docker/dockerfile:1
# The function as a container image, for those who prefer one to layers: the same program, Debian's Chromium and fonts, the
# static FFmpeg that scripts/setup.sh checks against its hash. Debian has the glibc that its Chromium needs, so nothing is
# unpacked at a cold start. Build: docker build --tag panorec . (add --platform linux/arm64 for the other processor).
# Push to ECR and make a function with PackageType Image; settings, role and stores are those of template.yaml.

FROM rust:1.95-bookworm AS build
WORKDIR /source
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-pip \
    && rm -rf /var/lib/apt/lists/*
COPY . .
# `run` would install Chromium here as well, where it is not needed: it is told that there is one.
RUN PANOREC_CHROMIUM=true scripts/setup.sh build run \
    && cargo build --profile dist --locked --bin panorec

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        ca-certificates chromium \
        fonts-dejavu-core fonts-liberation fonts-noto-color-emoji fonts-wqy-microhei \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /source/target/dist/panorec /opt/panorec/bootstrap
COPY --from=build /source/.tools/ffmpeg /opt/bin/ffmpeg
COPY --from=build /source/LICENSE-APACHE /source/LICENSE-MIT /source/NOTICE /usr/share/doc/panorec/
ENV PANOREC_FFMPEG=/opt/bin/ffmpeg HOME=/tmp
# Lambda runs it as a user of its own; elsewhere nobody's will do.
USER 65534
# The program speaks the runtime interface itself (AWS_LAMBDA_RUNTIME_API), which the platform sets; without it, it is the
# command line: docker run panorec record URL --output FILE.
ENTRYPOINT ["/opt/panorec/bootstrap"]
