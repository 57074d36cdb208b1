//! The template against the code and the platform: what linters let pass.
//!
//! Limits are those of AWS Lambda's and Amazon EventBridge's quotas and of their API references.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::sam;

fn template() -> &'static Value {
    static TEMPLATE: OnceLock<Value> = OnceLock::new();
    TEMPLATE.get_or_init(sam::template)
}

fn resources() -> &'static serde_json::Map<String, Value> {
    template()["Resources"].as_object().unwrap()
}

fn of_type(kind: &str) -> Vec<(&'static String, &'static Value)> {
    let found: Vec<_> = resources().iter().filter(|(_, r)| r["Type"] == kind).collect();
    assert!(!found.is_empty(), "no {kind}");
    found
}

fn function() -> &'static Value {
    &resources()["RecorderFunction"]["Properties"]
}

fn parameter(name: &str) -> &'static Value {
    let parameter = &template()["Parameters"][name];
    assert!(parameter.is_object(), "no parameter {name}");
    parameter
}

#[test]
fn the_linter_has_nothing_to_say() {
    sam::good(Command::new(sam::program()).args(["validate", "--lint", "--template", "template.yaml"]));
}

#[test]
fn the_environment_is_what_the_code_reads() {
    let code = include_str!("../../src/config.rs");
    let constants = code.lines().filter(|l| l.starts_with("pub const "));
    let in_code: BTreeSet<&str> = constants.filter_map(|l| l.split('"').nth(1)).collect();
    let variables = function()["Environment"]["Variables"].as_object().unwrap();
    let in_template: BTreeSet<&str> = variables.keys().map(String::as_str).collect();
    let unknown: Vec<_> = in_template.difference(&in_code).collect();
    assert!(unknown.is_empty(), "the function does not read {unknown:?}");
    // What the layers bring is where the function looks by itself; everything else can be set by whoever deploys.
    let left: Vec<&str> = in_code.difference(&in_template).copied().filter(|n| !LAYERS_OWN.contains(n)).collect();
    assert!(
        left.is_empty(),
        "nobody can set {left:?}: give the template a parameter, or name them here with the reason"
    );
}

/// Found in the layers, or of use to who works on the recorder only.
const LAYERS_OWN: [&str; 4] = ["PANOREC_CHROMIUM", "PANOREC_FFMPEG", "VOD_ENDPOINT", "VOD_UPLOAD_ENDPOINT"];

#[test]
fn limits_are_the_platforms() {
    let within = |value: &Value, from: u64, to: u64, what: &str| {
        let value = value.as_u64().unwrap_or_else(|| panic!("{what} is {value}"));
        assert!((from..=to).contains(&value), "{what} is {value}, outside {from} to {to}");
    };
    within(&function()["Timeout"], 1, 900, "Timeout");
    for (name, from, to) in [("MemorySize", 128, 10_240), ("EphemeralStorageSize", 512, 10_240)] {
        for bound in ["MinValue", "Default", "MaxValue"] {
            within(&parameter(name)[bound], from, to, &format!("{bound} of {name}"));
        }
    }
    within(&parameter("MaxRecordDuration")["MaxValue"], 1, 36_000, "the contract's limit");
    let invoke = &function()["EventInvokeConfig"];
    within(&invoke["MaximumRetryAttempts"], 1, 2, "retries: with none, a killed recorder waits for the schedule");
    // Two tries that were killed at their ends, the platform's pauses before the second and the third.
    let third = 2 * function()["Timeout"].as_u64().unwrap() + 60 + 120;
    within(&invoke["MaximumEventAgeInSeconds"], third, 21_600, "MaximumEventAgeInSeconds");
    for (api, limit) in [("AWS::ApiGatewayV2::Integration", 30_000), ("AWS::ApiGateway::Method", 29_000)] {
        for (name, resource) in of_type(api) {
            let properties = &resource["Properties"];
            let own = if properties["TimeoutInMillis"].is_u64() { properties } else { &properties["Integration"] };
            within(&own["TimeoutInMillis"], 50, limit, name);
        }
    }
    let retention = parameter("LogRetentionDays");
    assert!(retention["AllowedValues"].as_array().unwrap().contains(&retention["Default"]));
}

#[test]
fn words_are_the_platforms() {
    let words = [
        ("/RecursiveLoop", vec!["Allow"]), // by default a chain of invocations ends after 16
        ("/Runtime", vec!["provided.al2023"]),
        ("/Handler", vec!["bootstrap"]),
        ("/LoggingConfig/LogFormat", vec!["Text", "JSON"]),
    ];
    for (pointer, allowed) in words {
        let word = function().pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer}"));
        assert!(allowed.contains(&word), "{pointer} is {word}");
    }
    assert_eq!(parameter("Architecture")["AllowedValues"], json!(["x86_64", "arm64"]));
    assert_eq!(parameter("Authorization")["Default"], "AWS_IAM", "nobody records at your cost unless you say so");
    assert_eq!(resources()["Sweep"]["Properties"]["ScheduleExpression"], "rate(1 minute)");
    for (name, resource) in resources() {
        let kept = resource.get("DeletionPolicy").and_then(Value::as_str);
        assert!(matches!(kept, None | Some("Retain" | "Delete")), "{name}");
    }
}

/// What each call of the AWS clients needs (Service Authorization Reference; for uploads "Multipart upload API and permissions").
const NEEDS: [(&str, &str); 24] = [
    ("put_object", "s3:PutObject"),
    ("create_multipart_upload", "s3:PutObject"),
    ("upload_part", "s3:PutObject"),
    ("complete_multipart_upload", "s3:PutObject"),
    ("upload_part_copy", "s3:PutObject"),
    ("copy_object", "s3:PutObject"),
    ("abort_multipart_upload", "s3:AbortMultipartUpload"),
    ("list_parts", "s3:ListMultipartUploadParts"),
    ("list_multipart_uploads", "s3:ListBucketMultipartUploads"),
    ("get_object", "s3:GetObject"),
    ("head_object", "s3:GetObject"),
    ("head_bucket", "s3:ListBucket"),
    ("list_objects_v2", "s3:ListBucket"),
    ("delete_object", "s3:DeleteObject"),
    ("delete_objects", "s3:DeleteObject"),
    ("put_object_tagging", "s3:PutObjectTagging"),
    ("get_item", "dynamodb:GetItem"),
    ("put_item", "dynamodb:PutItem"),
    ("update_item", "dynamodb:UpdateItem"),
    ("delete_item", "dynamodb:DeleteItem"),
    ("query", "dynamodb:Query"),
    ("scan", "dynamodb:Scan"),
    ("transact_write_items", "dynamodb:PutItem"),
    ("invoke", "lambda:InvokeFunction"),
];

fn actions(statement: &Value) -> Vec<String> {
    match &statement["Action"] {
        Value::String(action) => vec![action.clone()],
        Value::Array(all) => all.iter().map(|a| a.as_str().unwrap().to_owned()).collect(),
        other => panic!("{other}"),
    }
}

/// Statements of the role, those under a condition too.
fn statements() -> Vec<&'static Value> {
    let policy = &resources()["RecorderRole"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"];
    policy.as_array().unwrap().iter().map(|s| s.pointer("/Fn::If/1").unwrap_or(s)).collect()
}

#[test]
fn the_role_permits_the_calls_that_are_made_and_no_other() {
    let mut code = String::new();
    let mut todo = vec![sam::root().join("src/platform/aws")];
    while let Some(path) = todo.pop() {
        match path.is_dir() {
            true => todo.extend(std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path())),
            false => code.push_str(&std::fs::read_to_string(path).unwrap()),
        }
    }
    let made: BTreeSet<&str> =
        NEEDS.iter().filter(|(call, _)| code.contains(&format!(".{call}()"))).map(|(_, action)| *action).collect();
    assert!(made.len() > 6, "{made:?}");
    let ours = ["s3:", "dynamodb:", "lambda:"];
    let granted: Vec<String> = statements().into_iter().filter(|s| s["Effect"] == "Allow").flat_map(actions).collect();
    let granted: BTreeSet<&str> =
        granted.iter().map(String::as_str).filter(|a| ours.iter().any(|o| a.starts_with(o))).collect();
    assert_eq!(granted, made, "left: what the role permits; right: what the code calls");
}

#[test]
fn no_statement_is_wider_than_it_must_be() {
    for statement in statements() {
        let (id, actions) = (statement["Sid"].as_str().unwrap(), actions(statement));
        assert!(!actions.iter().any(|a| a.contains('*')), "{id}: {actions:?}");
        let everything = statement["Resource"] == "*";
        // Network interfaces: the calls take no resource.
        assert!(!everything || actions.iter().all(|a| a.starts_with("ec2:")), "{id} is for every resource");
    }
    let invoke = statements().into_iter().find(|s| actions(s).contains(&"lambda:InvokeFunction".into())).unwrap();
    let itself = invoke["Resource"]["Fn::Sub"].as_str().unwrap();
    assert!(itself.ends_with(":function:${ApplicationName}"), "the function may ask for itself alone: {itself}");
}

#[test]
fn whoever_may_call_the_function_is_named() {
    for (name, permission) in of_type("AWS::Lambda::Permission") {
        let properties = &permission["Properties"];
        let open = properties["Principal"] == "*";
        assert_eq!(open, permission["Condition"] == "IsOpenFunctionUrl", "{name}");
        assert!(open || properties["SourceArn"].is_object(), "{name} is for one source");
    }
    let conditions = &template()["Conditions"];
    assert_eq!(conditions["IsOpen"], json!({"Fn::Equals": [{"Ref": "Authorization"}, "NONE"]}));
    for kind in ["AWS::ApiGatewayV2::Route", "AWS::ApiGateway::Method"] {
        for (name, route) in of_type(kind) {
            let preflight = name.ends_with("Preflight");
            let expected = if preflight { json!("NONE") } else { json!({"Ref": "Authorization"}) };
            assert_eq!(route["Properties"]["AuthorizationType"], expected, "{name}");
        }
    }
}

#[test]
fn stores_are_closed_encrypted_and_tidied() {
    for (name, bucket) in of_type("AWS::S3::Bucket") {
        let properties = &bucket["Properties"];
        let block = properties["PublicAccessBlockConfiguration"].as_object().unwrap();
        assert!(block.len() == 4 && block.values().all(|v| v == true), "{name}");
        assert!(properties["BucketEncryption"].is_object(), "{name}");
        assert_eq!(bucket["DeletionPolicy"], "Retain", "{name}: recordings outlive the stack");
        let rules = properties["LifecycleConfiguration"]["Rules"].as_array().unwrap();
        let abort = rules.iter().find_map(|r| r["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"].as_u64());
        assert!(abort.unwrap() * 86_400 > 36_000, "{name}: the longest recording keeps its upload open");
        let policy =
            of_type("AWS::S3::BucketPolicy").into_iter().find(|(_, p)| p["Properties"]["Bucket"]["Ref"] == **name);
        assert!(policy.is_some(), "{name} takes TLS only");
    }
    let table = &resources()["Tasks"]["Properties"];
    assert_eq!(table["BillingMode"], "PAY_PER_REQUEST");
    assert_eq!(table["TimeToLiveSpecification"], json!({"AttributeName": "ttl", "Enabled": true}));
    assert_eq!(table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"], true);
    assert_eq!(table["KeySchema"], json!([{"AttributeName": "id", "KeyType": "HASH"}]));
    let index = &table["GlobalSecondaryIndexes"][0];
    let expected =
        json!([{"AttributeName": "shelf", "KeyType": "HASH"}, {"AttributeName": "sort", "KeyType": "RANGE"}]);
    assert_eq!((&index["IndexName"], &index["KeySchema"]), (&json!("by-shelf"), &expected));
}

#[test]
fn alarms_look_at_what_the_code_says() {
    let metrics = include_str!("../../src/generation/metrics.rs");
    let sweep = include_str!("../../src/generation/tasks/mod.rs");
    let pattern = |name: &str| resources()[name]["Properties"]["FilterPattern"].as_str().unwrap();
    assert!(metrics.contains("(\"Failed\", \"Count\"") && pattern("FailedTasks") == "{ $.Failed = 1 }");
    let message = pattern("Orphans").split('"').nth(1).unwrap();
    assert!(sweep.contains(&format!("\"{message}\"")), "no line of the log says: {message}");
    let mut filters = BTreeMap::new();
    for (_, filter) in of_type("AWS::Logs::MetricFilter") {
        let metric = &filter["Properties"]["MetricTransformations"][0];
        filters.insert(metric["MetricName"].as_str().unwrap(), &metric["MetricNamespace"]);
    }
    for (name, alarm) in of_type("AWS::CloudWatch::Alarm") {
        let properties = &alarm["Properties"];
        let metric = properties["MetricName"].as_str().unwrap();
        match filters.get(metric) {
            Some(namespace) => assert_eq!(&&properties["Namespace"], namespace, "{name}"),
            None => assert_eq!((metric, properties["Namespace"].as_str()), ("Throttles", Some("AWS/Lambda")), "{name}"),
        }
        assert_eq!(properties["TreatMissingData"], "notBreaching", "{name}: nothing recorded is no fault");
    }
}

#[test]
fn the_layers_are_those_that_can_be_built() {
    let mut named = BTreeMap::new();
    for (name, layer) in of_type("AWS::Serverless::LayerVersion") {
        assert_eq!(layer["Metadata"]["BuildMethod"], "makefile", "{name}");
        named.insert(layer["Properties"]["ContentUri"].as_str().unwrap().to_owned(), name.clone());
        assert!(function()["Layers"].as_array().unwrap().contains(&json!({"Ref": name})), "{name}");
    }
    let expected = [("layers/chromium", "ChromiumLayer"), ("layers/ffmpeg", "FfmpegLayer")];
    assert_eq!(named, expected.map(|(path, name)| (path.to_owned(), name.to_owned())).into());
    for entry in std::fs::read_dir(sam::root().join("layers")).into_iter().flatten() {
        let makefile = entry.unwrap().path().join("Makefile");
        if let Ok(text) = std::fs::read_to_string(&makefile) {
            let path = makefile.parent().unwrap().strip_prefix(sam::root()).unwrap().to_str().unwrap().to_owned();
            let target = format!("build-{}:", named.get(&path).unwrap_or_else(|| panic!("{path} is in no layer")));
            assert!(text.contains(&target), "{path} has no target {target}");
        }
    }
    let makefile = include_str!("../../Makefile");
    assert!(makefile.contains("\nbuild-RecorderFunction:"), "sam build asks for it");
}

/// `sam build` gives a layer's Makefile no architecture, so it comes the way it comes to the function's.
#[test]
fn layers_are_built_for_the_processor_that_the_function_is_built_for() {
    for (architecture, packages, wheel) in [("x86_64", "amd64", "x86_64"), ("arm64", "arm64", "aarch64")] {
        let said = [
            ("layers/chromium", "build-ChromiumLayer", format!("./fetch.sh {packages} ")),
            ("layers/ffmpeg", "build-FfmpegLayer", format!("--platform manylinux2014_{wheel} ")),
        ];
        for (directory, target, word) in said {
            let mut make = Command::new("make");
            make.args(["--dry-run", "-C", directory, target]).env("ARCHITECTURE", architecture).env_remove("ARCH");
            let output = sam::good(make.env("ARTIFACTS_DIR", "nowhere"));
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains(&word), "{architecture}, {directory}: no `{word}` in {text}");
        }
    }
}

#[test]
fn the_envelopes_of_the_fixtures_are_those_that_sam_makes() {
    let made = tempfile::tempdir().unwrap();
    sam::good(Command::new("python3").args(["-B", "scripts/events.py"]).arg(sam::program()).arg(made.path()));
    let read = |dir: &std::path::Path| -> BTreeMap<_, _> {
        let files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        files.map(|f| (f.file_name().unwrap().to_owned(), std::fs::read_to_string(f).unwrap())).collect()
    };
    let (made, kept) = (read(made.path()), read(&sam::root().join("events")));
    assert!(made.len() > 50);
    let other: Vec<_> =
        made.iter().filter(|(name, text)| kept.get(*name) != Some(text)).map(|(name, _)| name).collect();
    assert!(other.is_empty() && made.len() == kept.len(), "run scripts/events.py .tools/sam/run; differs: {other:?}");
}
