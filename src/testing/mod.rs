//! Simulated disk and clock, models, oracles and fuzz entry points. Never part of a user's build.

pub mod ensemble_sim;
pub mod fuzz;
pub mod fuzz_config;
pub mod fuzz_log;
pub mod fuzz_node;
pub mod fuzz_quorum;
pub mod fuzz_snap;
pub mod fuzz_wire;
pub mod log_model;
pub mod node_sim;
pub mod seeded;
pub mod sim_disk;
pub mod world;
pub mod zab_model;
