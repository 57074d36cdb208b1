//! Which failed conditional writes the SDK may repeat: those that certainly did nothing.

use aws_sdk_dynamodb::config::interceptors::InterceptorContext;
use aws_sdk_dynamodb::config::retry::{ClassifyRetry, RetryAction};
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;

use super::super::error::is_throttle;

/// Forbids what the SDK's own rules would repeat because it may help: lost connections, limits of time, server errors.
#[derive(Debug)]
pub(super) struct ThrottlingOnly;

impl ClassifyRetry for ThrottlingOnly {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(Result::err).and_then(|e| e.as_operation_error());
        let put = error.and_then(|e| e.downcast_ref::<PutItemError>()).and_then(ProvideErrorMetadata::code);
        let delete = error.and_then(|e| e.downcast_ref::<DeleteItemError>()).and_then(ProvideErrorMetadata::code);
        if put.or(delete).is_some_and(is_throttle) {
            RetryAction::throttling_error()
        } else {
            RetryAction::RetryForbidden
        }
    }

    fn name(&self) -> &'static str {
        "throttling only"
    }
}
