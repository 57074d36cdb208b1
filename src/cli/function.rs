//! The function: events from the platform's runtime interface, one at a time.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lambda_runtime::{Context, LambdaEvent, service_fn};
use serde_json::Value;
use tokio::sync::OnceCell;

use super::{tools, world};
use crate::api::Service;
use crate::config;
use crate::generation::Invocation;

/// Answers events until the platform ends the process. A bad setting ends it before the first.
pub fn run() -> ExitCode {
    let settings = match config::settings() {
        Ok(settings) => Arc::new(settings),
        Err(error) => {
            tracing::error!(%error, "bad setting");
            return ExitCode::FAILURE;
        }
    };
    let runtime = match super::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    // Layers are unpacked from here on, whatever the first event is: it comes at once, or the environment waits for it.
    let tools = match tools::find() {
        Ok(tools) => tools,
        Err(error) => {
            tracing::error!(error, "cannot record");
            return ExitCode::FAILURE;
        }
    };
    let service: Arc<OnceCell<Service>> = Arc::default();
    let handler = service_fn(move |event: LambdaEvent<Value>| {
        let (service, settings, tools) = (Arc::clone(&service), Arc::clone(&settings), tools.clone());
        async move {
            // Made with the first event: being ready for it comes first.
            let service = service.get_or_try_init(|| world::in_the_cloud(&settings, tools)).await?;
            service.answer(&event.payload, &invocation(&event.context)).await.map_err(lambda_runtime::Error::from)
        }
    });
    match runtime.block_on(lambda_runtime::run(handler)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the runtime interface failed");
            ExitCode::FAILURE
        }
    }
}

fn invocation(context: &Context) -> Invocation {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = Duration::from_millis(context.deadline).saturating_sub(now);
    Invocation::new(&context.request_id, Some(left))
}
