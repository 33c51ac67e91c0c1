//! What the command line offers.

pub mod bench;
