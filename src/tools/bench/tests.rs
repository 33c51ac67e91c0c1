//! The load generator against the floor server, over loopback, on ephemeral ports.
