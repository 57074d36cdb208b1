//! Bad input gets one clear message that names the field, the bound and the way out, and exit status 2; nothing is left.

use std::process::{Command, Output};

fn panorec(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_panorec")).args(args).output().expect("panorec runs")
}

fn refusal(args: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("never.mp4");
    let mut all = vec!["record", "--output", output.to_str().unwrap()];
    all.extend(args);
    let result = panorec(&all);
    assert_eq!(result.status.code(), Some(2), "{result:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    String::from_utf8(result.stderr).unwrap()
}

#[test]
fn every_bad_argument_is_named_with_its_bound_and_the_way_out() {
    let url = "http://example.com/";
    let cases: [(&[&str], &[&str]); 12] = [
        (&["ftp://example.com/"], &["RecordURL", "http and https"]),
        (&["example.com"], &["RecordURL", "https://host/path"]),
        (&[url, "--width", "1281"], &["Width", "odd", "1280 or 1282"]),
        (&[url, "--height", "2562"], &["Height", "2560"]),
        (&[url, "--fps", "29"], &["--fps", "24, 25, 30"]),
        (&[url, "--bitrate", "50k"], &["Bitrate", "100..=20000"]),
        (&[url, "--bitrate", "fast"], &["--bitrate", "2500k"]),
        (&[url, "--audio-bitrate", "500"], &["AudioBitrate", "32..=320"]),
        (&[url, "--duration", "soon"], &["--duration", "10s"]),
        (&[url, "--duration", "0"], &["--duration", "Ctrl-C"]),
        (&[url, "--ready-timeout", "5s"], &["--ready-timeout", "--manual-start"]),
        (&[url, "--allow-address", "localhost"], &["--allow-address", "127.0.0.0/8"]),
    ];
    for (args, expected) in cases {
        let message = refusal(args);
        for word in expected {
            assert!(message.contains(word), "{args:?}: `{message}` does not say `{word}`");
        }
    }
}

#[test]
fn help_lists_every_option_of_record() {
    let help = String::from_utf8(panorec(&["record", "--help"]).stdout).unwrap();
    let options = [
        "--output",
        "--duration",
        "--width",
        "--height",
        "--fps",
        "--bitrate",
        "--manual-start",
        "--ready-timeout",
        "--allow-address",
        "--json",
    ];
    for option in options {
        assert!(help.contains(option), "{option}");
    }
}

#[test]
fn a_function_that_misses_something_says_so_and_ends() {
    let output = Command::new(env!("CARGO_BIN_EXE_panorec"))
        .env_clear()
        .envs([("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9"), ("AWS_LAMBDA_FUNCTION_NAME", "recorder")])
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("AWS_LAMBDA_FUNCTION_MEMORY_SIZE: not set") && !said.contains("panicked"), "{said}");
}

#[test]
fn each_line_of_the_log_is_one_json_object_with_one_message() {
    /// Reading fails where a field is there twice.
    #[derive(serde::Deserialize)]
    struct Line {
        message: String,
        reason: Option<String>,
    }
    let dir = tempfile::tempdir().unwrap();
    let event = concat!(env!("CARGO_MANIFEST_DIR"), "/events/error-method.json");
    let output = panorec(&["invoke", event, "--data", dir.path().to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let log = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<Line> =
        log.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect();
    let refused = lines.iter().find(|l| l.message == "refused").unwrap_or_else(|| panic!("{log}"));
    assert!(refused.reason.as_ref().unwrap().contains("POST /record"), "{log}");
}
