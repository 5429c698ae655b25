//! uds
