//! ZAB: how the members of an ensemble come to have one history, and keep it. Design: `src/docs/zab.md`.

mod plan;

pub use plan::{History, Plan, plan};
