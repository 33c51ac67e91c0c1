//! Every four-letter word, parsed field by field.
#[test]
fn x() {}
