//! The ports between servers: sockets, names and timers, which move bytes between peers and the machines that decide.
//!
//! - QP1: a peer is known by its id, never by an address; names are asked for anew with every attempt to connect.
//! - QP2: what a stranger or a broken peer can cost is bounded before it has said who it is, and afterwards by the bytes it sent.

pub mod election_port;
pub mod resolve;
