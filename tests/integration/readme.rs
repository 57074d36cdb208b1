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
    let constants = code.lines().filter(|l| l.starts_with("pub const "));
    let in_code: BTreeSet<_> = constants.filter_map(|l| l.split('"').nth(1)).map(str::to_string).collect();
    assert!(in_code.len() > 10, "{in_code:?}");
    let readme = readme();
    let table = readme.split("| variable |").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let in_table = table.lines().filter_map(|l| l.strip_prefix("| `")).filter_map(|l| l.split('`').next());
    assert_eq!(in_table.map(str::to_string).collect::<BTreeSet<_>>(), in_code);
}

#[test]
fn every_field_of_start_and_every_code_is_in_the_readme() {
    let readme = readme();
    let code = concat!(include_str!("../../src/api/start.rs"), include_str!("../../src/api/error.rs"));
    let names = code.split('"').skip(1).step_by(2).filter(|w| w.len() > 3 && w.chars().all(char::is_alphanumeric));
    let names: BTreeSet<_> = names.filter(|w| w.starts_with(char::is_uppercase)).collect();
    // Explained by the sentence on what is refused so far.
    let later = ["EncryptKey", "EncryptIv", "AuthUrl"];
    let missing: Vec<_> = names.iter().filter(|n| !later.contains(n) && !readme.contains(**n)).collect();
    assert!(names.len() > 20 && missing.is_empty(), "{missing:?}");
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
