//! Joins the cores: prepare -> append -> flush -> apply -> reply.
