//! What `make fuzz` begins with, replayed without a fuzzer; what it finds becomes one of these.

use std::path::Path;

#[path = "../../fuzz/answers.rs"]
mod answers;

fn files(dir: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    entries.map(|e| std::fs::read(e.unwrap().path()).unwrap()).collect()
}

#[test]
fn every_seed_and_its_mutilations_are_answered() {
    let seeds = [files("events"), files("fuzz/seeds")].concat();
    assert!(seeds.len() > 60);
    for seed in seeds {
        answers::check(&seed);
        // Cut off, and with a byte of it replaced, at a few places.
        for part in 1..8 {
            let at = seed.len() * part / 8;
            answers::check(&seed[..at]);
            let mut other = seed.clone();
            other[at] ^= 1 << part;
            answers::check(&other);
        }
    }
}
