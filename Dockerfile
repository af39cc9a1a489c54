# The image of the manifests: the umbra binary, glibc, libgcc and the authorities that browsers trust, nothing else. Both stages are
# Debian 12: a binary does not run on an older glibc than the one it was built with.
#
#   docker build -t umbra:dev .
FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake protobuf-compiler \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release -p umbra-cli && cp target/release/umbra /umbra

# glibc and CA certificates, no shell, user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /umbra /usr/local/bin/umbra
ENTRYPOINT ["/usr/local/bin/umbra"]
CMD ["serve"]
