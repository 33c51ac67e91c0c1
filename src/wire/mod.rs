//! ZooKeeper's wire: jute, client records, transaction records. Bytes in, borrowed values out; no state, no I/O.
