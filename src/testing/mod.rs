//! Simulated disk and clock, models, oracles and fuzz entry points. Never part of a user's build.

pub mod fuzz;
pub mod sim_disk;
