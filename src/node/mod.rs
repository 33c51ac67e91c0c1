//! Joins the cores: a request becomes a transaction, a transaction and its outcome become a reply, a read is answered.

pub mod auth;
pub mod ip;
pub mod path;
