# Stage 1 compiles one static program; stage 2 contains that program and an empty folder for the database.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src

# Static glibc, so that the image needs no libraries. Nothing in the program needs the crate `getrandom` (only a build script
# and the tests have it in their trees), and the standard library uses the kernel's system call, so no /dev/urandom is needed either.
ENV RUSTFLAGS="-C target-feature=+crt-static"

# A separate layer for the dependencies: it is rebuilt only when one of these files changes.
# .cargo/config.toml has the compile options of SQLite and the allocator.
COPY Cargo.toml Cargo.lock ./
COPY .cargo/config.toml .cargo/config.toml
COPY crates/domain/Cargo.toml crates/domain/Cargo.toml
COPY crates/providers/Cargo.toml crates/providers/Cargo.toml
COPY crates/runtime/Cargo.toml crates/runtime/Cargo.toml
COPY crates/index/Cargo.toml crates/index/Cargo.toml
COPY crates/store/Cargo.toml crates/store/Cargo.toml
COPY crates/server/Cargo.toml crates/server/Cargo.toml
COPY crates/bench/Cargo.toml crates/bench/Cargo.toml
COPY crates/testkit/Cargo.toml crates/testkit/Cargo.toml
COPY crates/postroom/Cargo.toml crates/postroom/Cargo.toml
# Naming the target keeps RUSTFLAGS away from build scripts and procedural macros, which cannot be static.
RUN rustc --print host-tuple > /target-name \
    && for name in crates/*; do mkdir "$name/src" && touch "$name/src/lib.rs"; done \
    && rm crates/postroom/src/lib.rs \
    && echo 'fn main() {}' > crates/postroom/src/main.rs \
    && cargo build --release --locked --package postroom --target "$(cat /target-name)"

# The program, with the samples that are compiled into it. `touch`, because COPY keeps time stamps that may be older than those
# of the placeholder files.
COPY testdata/providers testdata/providers
COPY crates crates
RUN touch crates/*/src/*.rs \
    && cargo build --release --locked --package postroom --target "$(cat /target-name)" \
    && mkdir -p /image/data /image/usr/local/bin \
    && cp "target/$(cat /target-name)/release/postroom" /image/usr/local/bin/postroom

# No shell, no libraries, no package manager.
FROM scratch
LABEL org.opencontainers.image.title="postroom" \
      org.opencontainers.image.description="The post room for message webhooks" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /image/usr/local/bin/postroom /usr/local/bin/postroom
COPY --from=build --chown=65532:65532 /image/data /data

# There is no /tmp: SQLite's temporary files are next to the database.
USER 65532:65532
VOLUME ["/data"]
EXPOSE 8000
STOPSIGNAL SIGTERM
# The first start on a large database of the original service builds indices first; until then it is not ready.
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --retries=3 CMD ["/usr/local/bin/postroom", "health"]
ENTRYPOINT ["/usr/local/bin/postroom"]
CMD ["serve"]
