# The gateway's image: builds with the lock file's versions and nothing of the host but these sources, and keeps the one program,
# glibc and the authorities of the web. No shell, no package manager, no file that uid 1000 could write.
#
#   docker build -t mcp-gateway:0.1.0 .
#   docker run --rm --read-only --cap-drop ALL -p 8443:8443 -p 9443:9443 mcp-gateway:0.1.0
#
# Servers that are started as processes (`transport = "stdio"`) bring their own programs: derive an image from one that has them,
# and copy /usr/local/bin/mcp-gateway into it.

# Not the slim one: glommio asks for git when it builds its C library, and what is there need not be fetched from a mirror.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches only make the next build quicker; `--locked` decides what is built. Line tables would be three quarters of the
# image; a panic says its line without them, and the symbols for `perf` stay.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin mcp-gateway && \
    install -D -m 0755 target/release/mcp-gateway /out/usr/local/bin/mcp-gateway && \
    strip --strip-debug /out/usr/local/bin/mcp-gateway

# Of the same Debian, so of the same glibc.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/ /
USER 1000:1000
EXPOSE 8443 9443 9090
# Drains: what is in flight is answered, streams and connections are told.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/mcp-gateway"]
