//! `zabra`: the command line. Parses arguments, hands over to [`zabra::tools`], and turns the result into an exit code.

fn main() {}
