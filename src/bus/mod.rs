//! The bus: processes that find each other by name.

pub mod local;
pub mod memory;
