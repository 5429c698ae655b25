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

# Two processes over shm:// for as long as it takes: ten thousand kills, five million sleeps, ten
# minutes of scribbling over streams and over records each, a hundred million records. Optimized,
# with debug assertions: maps lie between guard pages. `just shm-long kill` runs a part.
shm-long *which:
    CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true RINGLANE_KILLS=10000 RINGLANE_SLEEPS=5000000 \
        RINGLANE_SCRIBBLE_SECONDS=600 RINGLANE_RECORDS=100000000 \
        cargo test -p ringlane-shm --release --target-dir target/checked \
        --features crash-points --test peers -- {{which}}

# A process killed behind every step of the protocol of shm://.
shm-crash:
    cargo test -p ringlane-shm --features crash-points --test peers -- crash
    cargo test -p ringlane-shm --features crash-points,mutants --test through

# A stream through proxies over every transport, rdma:// included, both ends' checksums compared.
chain bytes="1073741824":
    RINGLANE_CHAIN_BYTES={{bytes}} cargo test --release --features rdma --test program -- \
        --nocapture one_stream

# Three hosts in namespaces: relays killed and replaced 200 times, then 40 on links that lose packets,
# then a consumer that is stopped for 10 s. A quarter of an hour; `just hosts-long hosts/slow` runs a
# part.
hosts-long *which:
    RINGLANE_FAULTS=200 cargo test --release --test hosts -- {{which}}

# Clusters in virtual time, so many seeds; and each rule of the protocol broken on purpose.
cluster seeds="10000":
    SEEDS={{seeds}} cargo test --release --features crash-points --test cluster
    cargo test --features crash-points,mutants --test cluster

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

# What one shm:// link costs a process that has 4,000: a round trip, and memory. About a minute.
many *arguments:
    cargo bench -p ringlane-benches --bench many -- {{arguments}}

# Every decoder, fuzzed for some seconds. `just fuzz --keep 600` keeps what reaches something new.
fuzz *arguments:
    fuzz/run {{arguments}}

# The bus beside NATS, mosquitto, ZeroMQ and raw TCP; needs nats-server, mosquitto and libzmq3-dev.
peers *arguments:
    cargo bench -p ringlane-benches --features zmq --bench bus -- {{arguments}}
