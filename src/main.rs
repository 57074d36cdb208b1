//! panorec: one binary, chosen by how it is started.

fn main() {}
