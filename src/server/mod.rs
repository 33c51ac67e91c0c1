//! The shell: tokio, threads, sockets, configuration.
