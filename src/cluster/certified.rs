//! Names that stand in certificates.

/// Whether a certificate can name a host.
pub(super) fn can_be_certified(host: &str) -> bool {
    crate::relay::tls::is_host_name(host)
}
