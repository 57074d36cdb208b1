//! `panorec serve`: the service on this machine.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::gateway::{self, Gateway, Handler};
use super::world;
use crate::api::Service;
use crate::config;
use crate::generation::Invocation;
use crate::platform::clock::SystemClock;

/// Between two looks for tasks that nobody works on: what a schedule does in the cloud. Nothing is recorded between a
/// recorder's loss and the look that finds it, unless the one who asked for it is still there; a look is some small queries.
const SWEEP: Duration = Duration::from_secs(1);
/// How long a request may take: what HTTP gateways allow.
const REQUEST: Duration = Duration::from_secs(30);

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Token that callers have to send (`Authorization: Bearer TOKEN`); needed when listening beyond this machine
    #[arg(long)]
    token: Option<String>,
    #[command(flatten)]
    world: world::Args,
}

/// Serves until it is interrupted; recordings that run go on. Exit status: 0 after an interrupt, 1 if it cannot start.
pub fn run(args: Args) -> ExitCode {
    let served = super::runtime().and_then(|runtime| runtime.block_on(serve(args)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("panorec: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(mut args: Args) -> Result<(), String> {
    if !args.listen.ip().is_loopback() && args.token.is_none() {
        return Err(format!(
            "--listen: {} is reachable by others; add --token so that not everybody can record",
            args.listen
        ));
    }
    let settings = config::settings().map_err(|e| e.to_string())?;
    let listener = TcpListener::bind(args.listen).await.map_err(|e| format!("--listen {}: {e}", args.listen))?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    args.world.public_url.get_or_insert_with(|| format!("http://{address}"));
    let service = Arc::new(world::on_this_machine(&settings, &args.world).await?);
    println!("panorec: listening on http://{address}, data in {}", args.world.data.display());
    let sweeping = tokio::spawn(sweep(Arc::clone(&service)));
    let recordings = world::recordings_dir(&args.world.data);
    let failed = |e| format!("the gateway failed: {e}");
    let handler: Arc<dyn Handler> = Arc::new(Gate { service, origin: settings.cors_origin.clone() });
    let gateway = Gateway::new(handler, Arc::new(SystemClock), &recordings, args.token).map_err(failed)?;
    let gateway = gateway.with_origin(settings.cors_origin.as_deref());
    let served = gateway::serve(listener, gateway, interrupted()).await;
    sweeping.abort();
    served.map_err(failed)
}

/// The service behind the gateway. Web pages can send requests to this machine without asking, so what a browser sends for
/// a page is heard only if the page's origin may call.
struct Gate {
    service: Arc<Service>,
    origin: Option<String>,
}

impl Gate {
    fn may_call(&self, event: &Value) -> bool {
        match (event["headers"]["origin"].as_str(), self.origin.as_deref()) {
            (None, _) | (_, Some("*")) => true,
            (Some(page), Some(allowed)) => page == allowed,
            (Some(_), None) => false,
        }
    }
}

#[async_trait]
impl Handler for Gate {
    async fn handle(&self, event: Value, request_id: &str) -> Value {
        if !self.may_call(&event) {
            let message = "pages of this origin may not call; name it in PANOREC_CORS_ORIGIN";
            let body = json!({"ErrorCode": "InvalidParam", "ErrorMessage": message, "RequestID": request_id});
            return json!({"statusCode": 403, "body": body.to_string()});
        }
        let invocation = Invocation::new(request_id, Some(REQUEST));
        // The gateway makes nothing but requests, and those are always answered.
        self.service.answer(&event, &invocation).await.unwrap_or_else(|error| json!({"statusCode": 500, "body": error}))
    }
}

async fn sweep(service: Arc<Service>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let invocation = Invocation::new("sweep", None);
        if let Err(error) = service.answer(&json!({"Sweep": {}}), &invocation).await {
            tracing::warn!(error, "sweep failed");
        }
    }
}

async fn interrupted() {
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
        }
        _ => std::future::pending().await,
    }
}
