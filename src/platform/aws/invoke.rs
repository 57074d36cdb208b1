//! Invocations of ourselves by Lambda's asynchronous invoke.

use async_trait::async_trait;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvocationType;

use super::Aws;
use super::error::{failed, own};
use crate::platform::{Continuation, RecorderEvent, StoreError, StoreErrorKind, recorder_event};

/// Lambda keeps the event and runs the function at least once. So the SDK may repeat a call whose answer was lost: one
/// invocation too many finds the task leased.
#[derive(Clone)]
pub struct LambdaContinuation {
    client: aws_sdk_lambda::Client,
    function: String,
}

impl LambdaContinuation {
    /// Invokes `function`: its name or ARN, with a qualifier or without.
    pub fn new(aws: &Aws, function: &str) -> Self {
        Self { client: aws_sdk_lambda::Client::new(&aws.config), function: function.to_owned() }
    }
}

#[async_trait]
impl Continuation for LambdaContinuation {
    async fn invoke(&self, event: &RecorderEvent) -> Result<(), StoreError> {
        let payload = serde_json::to_vec(&recorder_event(event))
            .map_err(|e| own("invoke", &self.function, StoreErrorKind::Refused, e.to_string()))?;
        let sent = self
            .client
            .invoke()
            .function_name(&self.function)
            .invocation_type(InvocationType::Event)
            .payload(Blob::new(payload))
            .send()
            .await;
        sent.map(drop).map_err(|e| failed("invoke", &self.function, e))
    }
}
