//! Sessions: who is alive, on which connection, until when.
