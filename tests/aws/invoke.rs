//! Asynchronous invocations.

use std::path::Path;
use std::time::Duration;

use panorec::platform::aws::LambdaContinuation;
use panorec::platform::{Continuation, RecorderEvent, StoreErrorKind};

use crate::support::aws;
use crate::support::lambda::Lambda;

/// A function starts and writes in a second; on a busy machine it may take longer.
const PATIENCE: Duration = Duration::from_secs(60);

async fn first_line(file: &Path) -> String {
    let written = async {
        loop {
            match std::fs::read_to_string(file) {
                Ok(text) if text.ends_with('\n') => return text.lines().next().unwrap().to_owned(),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("the function was invoked")
}

#[tokio::test]
async fn the_event_arrives_in_another_invocation() {
    let lambda = Lambda::new().await;
    let events = lambda.create("recorder").await;
    let continuation = LambdaContinuation::new(&aws(&lambda.endpoint).await, "recorder");
    continuation.invoke(&RecorderEvent { task: "7c1f-1".into(), generation: None }).await.unwrap();
    let event: serde_json::Value = serde_json::from_str(&first_line(&events).await).unwrap();
    assert_eq!(event, serde_json::json!({ "Recorder": { "TaskID": "7c1f-1" } }));
}

#[tokio::test]
async fn a_function_that_is_not_there_is_not_found() {
    let lambda = Lambda::new().await;
    let continuation = LambdaContinuation::new(&aws(&lambda.endpoint).await, "nobody");
    let missing = continuation.invoke(&RecorderEvent { task: "t".into(), generation: None }).await.unwrap_err();
    assert_eq!((missing.kind, missing.key.as_str()), (StoreErrorKind::NotFound, "nobody"), "{}", missing.source);
}
