//! ringlane
