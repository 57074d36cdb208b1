//! `main → cli/api → generation → { recording, delivery, platform } → task`: reads every source file and fails when one
//! names a room it must not know.

use std::path::{Path, PathBuf};

/// Rooms, and the rooms each may name.
const MAY_NAME: [(&str, &[&str]); 9] = [
    ("main", &["api", "cli", "config", "delivery", "generation", "platform", "recording", "task"]),
    ("cli", &["api", "cli", "config", "delivery", "generation", "platform", "recording", "task"]),
    ("api", &["api", "generation", "platform", "task"]),
    ("config", &["config"]),
    ("generation", &["delivery", "generation", "platform", "recording", "task"]),
    ("recording", &["recording", "task"]),
    ("delivery", &["delivery", "task"]),
    ("platform", &["platform", "task"]),
    ("task", &["task"]),
];

/// What the pure centre must not name: runtimes, clocks, files, the environment.
const IMPURE: [&str; 8] =
    ["tokio", "std::env", "std::fs", "std::net", "std::process", "std::thread", "SystemTime", "Instant"];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") && !is_test(&path) {
            found.push(path);
        }
    }
}

/// Test modules may look around.
fn is_test(path: &Path) -> bool {
    path.components().any(|c| matches!(c.as_os_str().to_str(), Some("tests" | "tests.rs")))
}

/// Code without comments, doc links and test modules, which may say what they like.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned();
    text.lines().map(|l| l.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Rooms named by paths from the crate's root, groups (`use crate::{a::x, b::{y, z}}`) included.
fn named_rooms(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, prefix) in ["crate::", "panorec::"].iter().flat_map(|p| code.match_indices(p)) {
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            rooms.push(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut expect_word = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => expect_word = true,
                c if expect_word && c.is_alphanumeric() => {
                    rooms.push(word(&group[at..]));
                    expect_word = false;
                }
                _ => {}
            }
        }
    }
    rooms
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn no_room_names_one_it_must_not_know() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert!(!is_test(&src), "the checkout lies below a directory called tests");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 30, "the sources were found");
    let rooms: Vec<&str> = MAY_NAME.iter().map(|(room, _)| *room).collect();
    let mut wrong = Vec::new();
    for file in &files {
        let relative = file.strip_prefix(&src).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let room = first.trim_end_matches(".rs");
        if room == "lib" {
            continue;
        }
        let (_, allowed) = MAY_NAME.iter().find(|(r, _)| *r == room).unwrap_or_else(|| panic!("unknown room {room}"));
        for named in named_rooms(&code(file)) {
            if rooms.contains(&named.as_str()) && !allowed.contains(&named.as_str()) {
                wrong.push(format!("{} names {named}", relative.display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_centre_is_pure() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/task"), &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let code = code(file);
        let impure = IMPURE.iter().filter(|word| code.contains(**word));
        wrong.extend(impure.map(|word| format!("{} names {word}", file.display())));
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn only_one_place_knows_the_cloud() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let cloud = src.join("platform/aws");
    let elsewhere = files.iter().filter(|f| !f.starts_with(&cloud) && code(f).contains("aws_"));
    assert_eq!(elsewhere.collect::<Vec<_>>(), Vec::<&PathBuf>::new());
}

#[test]
fn the_check_itself_sees_what_it_must() {
    assert_eq!(named_rooms("use crate::{task::x, recording::{a, b}, delivery};"), ["task", "recording", "delivery"]);
    assert_eq!(named_rooms("fn f() { crate::platform::local::g() }"), ["platform"]);
}
