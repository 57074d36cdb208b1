//! The template as whoever deploys it has it deployed: `sam build`, `sam deploy`, and what the stack says of itself.

use crate::cloud::lambda::Lambda;
use crate::cloud::process::tool;
use crate::cloud::{KEY, REGION, SECRET};
use crate::turn::turn;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

/// Where SAM puts the packages.
pub const PACKAGES: &str = "packages";
const STACK: &str = "recorder";
/// A layer as the template has it, from its second line on.
const BUILT_LAYER: &str = "    Metadata:\n      BuildMethod: makefile\n    Properties:\n      LayerName";

/// Deploys the template and returns the stack's outputs. The bucket [`PACKAGES`] must be there.
pub fn deploy(lambda: &Lambda, parameters: &[(&str, &str)]) -> HashMap<String, String> {
    let dir = lambda.dir.join("deployment");
    std::fs::create_dir(&dir).unwrap();
    let (source, built) = (dir.join("template.yaml"), dir.join("built"));
    std::fs::write(&source, template(&dir)).unwrap();
    // The program that the other tests run, too; the profile that is deployed takes minutes.
    let build = ["build", "--build-in-source", "--template", source.to_str().unwrap(), "--build-dir"];
    let building = turn(); // the program may be replaced, which nobody runs now
    sam(lambda, &dir, &[&build[..], &[built.to_str().unwrap()]].concat());
    drop(building);
    let overrides: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let template = built.join("template.yaml");
    let mut deploy = vec!["deploy", "--template-file", template.to_str().unwrap(), "--stack-name", STACK];
    deploy.extend(["--s3-bucket", PACKAGES, "--capabilities", "CAPABILITY_IAM", "--no-confirm-changeset"]);
    deploy.push("--parameter-overrides");
    deploy.extend(overrides.iter().map(String::as_str));
    sam(lambda, &dir, &deploy);
    let said = sam(lambda, &dir, &["list", "stack-outputs", "--stack-name", STACK, "--output", "json"]);
    let outputs: Vec<Value> = serde_json::from_slice(&said).unwrap();
    let text = |output: &Value, name: &str| output[name].as_str().unwrap().to_owned();
    outputs.iter().map(|output| (text(output, "OutputKey"), text(output, "OutputValue"))).collect()
}

/// The template, made to be built from another directory and without what goes into the layers: MiniStack does not put layers
/// into /opt, so they would be built, packed and sent for nothing.
fn template(dir: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("template.yaml")).unwrap();
    let layer = dir.join("layer");
    std::fs::create_dir(&layer).unwrap();
    std::fs::copy(root.join("LICENSE-MIT"), layer.join("LICENSE-MIT")).unwrap();
    assert_eq!(text.matches(BUILT_LAYER).count(), 2);
    let text = text.replace(BUILT_LAYER, "    Properties:\n      LayerName");
    let text = text.replace("CodeUri: .", &format!("CodeUri: {}", root.display()));
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for line in lines.iter_mut().filter(|l| l.trim_start().starts_with("ContentUri: layers/")) {
        *line = format!("      ContentUri: {}", layer.display());
    }
    lines.join("\n")
}

fn sam(lambda: &Lambda, dir: &Path, args: &[&str]) -> Vec<u8> {
    let mut sam = Command::new(tool("sam/run"));
    sam.args(args).current_dir(dir).env("HOME", dir);
    sam.env("SAM_CLI_TELEMETRY", "0").env("SAM_CLI_POLL_DELAY", "1").env("PANOREC_PROFILE", "release");
    // Its home is elsewhere, and cargo's is not.
    let home = std::env::var_os("HOME").map(std::path::PathBuf::from).unwrap_or_default();
    for (name, place) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        if std::env::var_os(name).is_none() && home.join(place).exists() {
            sam.env(name, home.join(place));
        }
    }
    sam.env("AWS_ENDPOINT_URL", &lambda.endpoint).env("AWS_DEFAULT_REGION", REGION);
    sam.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
    let output = sam.output().unwrap();
    let said = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "sam {args:?}: {}{}", said(&output.stdout), said(&output.stderr));
    output.stdout
}
