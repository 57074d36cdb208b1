//! What holds across rooms, without a browser: the direction of knowledge, the command line, the README's tables.

mod cli;
mod layering;
mod readme;
