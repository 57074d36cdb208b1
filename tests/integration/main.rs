//! What holds across rooms, without a browser: the direction of knowledge, the command line, the README's tables, the template; answers to
//! anything at all; signatures that others verify; the scripts that run two things at once.

#![allow(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]
#![allow(clippy::disallowed_methods, reason = "tests start the binary under test and wait for it")]

mod beside;
mod callbacks;
mod cli;
mod fuzzed;
mod layering;
mod readme;
mod sam;
mod template;
mod webhooks;
