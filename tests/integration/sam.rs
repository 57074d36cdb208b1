//! AWS SAM as the tests run it: offline, with nobody's account, saying nothing to anybody.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of `.tools/`, which must be there.
fn tool(name: &str) -> PathBuf {
    let path = root().join(".tools").join(name);
    assert!(path.exists(), "{} is missing; run: scripts/setup.sh test", path.display());
    path
}

/// The program.
pub fn program() -> PathBuf {
    tool("sam/run")
}

/// A command that finds nothing of its caller's.
pub fn alone(command: &mut Command) -> &mut Command {
    command.current_dir(root()).env("SAM_CLI_TELEMETRY", "0").env("AWS_DEFAULT_REGION", "us-east-1")
}

/// What came of a command, which must end well.
pub fn good(command: &mut Command) -> Output {
    let output = alone(command).output().unwrap();
    let said = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", said(&output.stdout), said(&output.stderr));
    output
}

/// The template as JSON, tags of intrinsic functions written out, by the parser that SAM itself uses.
pub fn template() -> serde_json::Value {
    let script = "import json, sys; sys.path.insert(0, sys.argv[1]); from samcli.yamlhelper import yaml_parse; \
                  print(json.dumps(yaml_parse(open('template.yaml').read())))";
    let output = good(Command::new("python3").args(["-B", "-c", script]).arg(tool("sam")));
    serde_json::from_slice(&output.stdout).unwrap()
}
