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

/// Names of tests in the tables of a document, by their place in the last column.
fn tests_named(document: &str) -> BTreeSet<String> {
    let rows = document.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| ---"));
    let last = rows.filter_map(|l| l.trim_end_matches(" |").rsplit(" | ").next());
    let words = last.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    // A test is a sentence.
    words.filter(|w| w.matches('_').count() >= 3).map(str::to_owned).collect()
}

#[test]
fn every_promise_and_every_rule_has_its_test() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut code, mut todo) = (String::new(), vec![root.join("src"), root.join("tests")]);
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            code.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    let is_test = |name: &str| {
        code.match_indices(&format!("fn {name}()")).any(|(at, _)| {
            let before = code[..at].trim_end().trim_end_matches("async").trim_end();
            before.ends_with(']') && before.lines().last().is_some_and(|l| l.contains("test"))
        })
    };
    let specification = readme().split("## Specification").nth(1).unwrap().split("\n## ").next().unwrap().to_owned();
    let security = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    for (document, least) in [(specification, 15), (security, 20)] {
        let named = tests_named(&document);
        let missing: Vec<_> = named.iter().filter(|name| !is_test(name)).collect();
        assert!(named.len() >= least && missing.is_empty(), "{} tests are named; not there: {missing:?}", named.len());
    }
}

#[test]
fn every_parameter_of_the_template_is_in_the_readme() {
    let template = crate::sam::template();
    let parameters = template["Parameters"].as_object().unwrap();
    let readme = readme();
    let table = readme.split("| parameter |").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let missing: Vec<_> = parameters.keys().filter(|name| !table.contains(&format!("`{name}`"))).collect();
    assert_eq!(missing, Vec::<&String>::new());
}
