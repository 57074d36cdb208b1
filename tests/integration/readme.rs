//! The README's tables equal the code's.

use std::collections::BTreeSet;

fn readme() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md is there")
}

fn words_in(text: &str, starts: &str, keep: impl Fn(char) -> bool) -> BTreeSet<String> {
    text.match_indices(starts).map(|(at, _)| text[at..].chars().take_while(|c| keep(*c)).collect()).collect()
}

#[test]
fn every_variable_is_in_the_table_and_no_other() {
    let code = include_str!("../../src/config.rs");
    let name = |c: char| c.is_ascii_uppercase() || c == '_';
    let in_code: BTreeSet<_> = words_in(code, "PANOREC_", name);
    let table: String = readme().lines().filter(|l| l.starts_with("| `PANOREC_")).collect();
    assert_eq!(words_in(&table, "PANOREC_", name), in_code);
}

#[test]
fn every_option_of_record_is_in_the_readme() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_panorec")).args(["record", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let option = |c: char| c.is_ascii_lowercase() || c == '-';
    let readme = readme();
    let missing: Vec<_> = words_in(&help, "--", option)
        .into_iter()
        .filter(|o| o.len() > 2 && o != "--help" && !readme.contains(o.as_str()))
        .collect();
    assert_eq!(missing, Vec::<String>::new());
}
