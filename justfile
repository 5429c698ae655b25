# Recipes by name. `.ci/run` is what a change must pass; the rest is run by hand.

# The whole check, as CI runs it.
ci:
    .ci/run

# The demo: every engine, every byte compared.
demo *arguments:
    cargo run --release -- demo {{arguments}}

# All tests.
test:
    cargo test --workspace

# The conformance table: every case, transport, engine and tier, skips with their reason.
conformance:
    cargo test --test conformance -- --nocapture

# A stream through proxies over every transport, rdma:// included, both ends' checksums compared.
chain bytes="1073741824":
    RINGLANE_CHAIN_BYTES={{bytes}} cargo test --release --features rdma --test program -- \
        --nocapture one_stream

# Formatting and lints.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Licences, sources, banned and doubled crates. Needs cargo-deny.
deny:
    cargo deny check bans licenses sources

# Known vulnerabilities. Needs cargo-deny and a copy of its database.
advisories:
    cargo deny check advisories
