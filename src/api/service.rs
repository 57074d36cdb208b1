//! The service: one event in, one answer out. Requests change and read task records; recording itself happens in other
//! invocations, which Start asks for.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::describe::{preview_json, task_json};
use super::error::{ApiError, Code};
use super::event::{Incoming, Request, parse};
use super::fields::Fields;
use super::reply::{self, Cors};
use super::start::{Defaults, MAX_TOKEN, order};
use crate::generation::{Invocation, Recorders, chain, change, preview};
use crate::platform::{Created, Cursor, Platform, RecorderEvent, Shelf, Versioned};
use crate::task::record::{CommandKind, TaskRecord};
use crate::task::status::Status;

/// Names of tasks that were started with a `ClientToken` are derived from it below this name, so that the same token
/// always meets the same record, without an index of tokens.
const TOKENS: Uuid = Uuid::from_u128(0x7061_6e6f_7265_6320_746f_6b65_6e73_0001);
/// Tasks of a List if no `Limit` is given, and at most.
const LIST_DEFAULT: u32 = 20;
const LIST_MAX: u32 = 100;

/// Settings of the service.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    /// Bounds of this deployment.
    pub defaults: Defaults,
    /// Browsers of these origins may call.
    pub cors: Cors,
}

/// The service.
pub struct Service {
    platform: Platform,
    recorders: Arc<dyn Recorders>,
    config: ServiceConfig,
}

type Answer = Result<Map<String, Value>, ApiError>;

impl Service {
    /// A service on a platform; `recorders` do what invocations for recording are for.
    pub fn new(platform: Platform, recorders: Arc<dyn Recorders>, config: ServiceConfig) -> Self {
        Self { platform, recorders, config }
    }

    /// Answers an event, whatever it is. An error means that the event should be delivered again, where that can be had:
    /// only events that nobody waits for the answer of come to that.
    pub async fn answer(&self, event: &Value, invocation: &Invocation) -> Result<Value, String> {
        match parse(event, &invocation.id) {
            Ok(Incoming::Request(request)) => Ok(self.request(request).await),
            Ok(Incoming::Record(event)) => self.recorders.record(&event, invocation).await,
            Ok(Incoming::Sweep) => self.recorders.sweep().await,
            Err(error) => Ok(reply::error(&error, &invocation.id, &self.config.cors)),
        }
    }

    async fn request(&self, request: Request) -> Value {
        if request.preflight && self.config.cors.is_some() {
            return reply::preflight(&self.config.cors);
        }
        let answer = match request.body {
            Ok(body) => self.act(&body, &request.id).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(body) => reply::ok(body, &request.id, &self.config.cors),
            Err(error) => {
                tracing::info!(request_id = request.id, code = error.code.word(), reason = error.message, "refused");
                reply::error(&error, &request.id, &self.config.cors)
            }
        }
    }

    async fn act(&self, body: &[u8], request_id: &str) -> Answer {
        let body: Value = serde_json::from_slice(body)
            .map_err(|e| ApiError::param("body", format!("not JSON ({e}); send {{\"Action\": …, \"Data\": {{…}}}}")))?;
        let Value::Object(body) = body else {
            return Err(ApiError::param("body", "not a JSON object; send {\"Action\": …, \"Data\": {…}}"));
        };
        let fields = Fields::new(&body);
        fields.only(&["Action", "Data"])?;
        let action = fields.needed("Action", "one of Start, Pause, Resume, Refresh, Stop, Describe, List")?;
        let data = fields.object("Data")?;
        match action {
            "Start" => self.start(&data, request_id).await,
            "Pause" => self.command(&data, CommandKind::Pause).await,
            "Resume" => self.command(&data, CommandKind::Resume).await,
            "Refresh" => self.command(&data, CommandKind::Refresh).await,
            "Stop" => self.stop(&data).await,
            "Describe" => self.describe(&data).await,
            "List" => self.list(&data).await,
            other => Err(fields.refuse(
                "Action",
                format!(
                    "`{}` is not one of Start, Pause, Resume, Refresh, Stop, Describe, List",
                    other.chars().take(40).collect::<String>().escape_debug()
                ),
            )),
        }
    }

    async fn start(&self, data: &Fields<'_>, request_id: &str) -> Answer {
        let order = order(data, self.config.defaults)?;
        let token = data.text("ClientToken", MAX_TOKEN)?;
        let id = token.map_or_else(Uuid::new_v4, |t| Uuid::new_v5(&TOKENS, t.as_bytes())).to_string();
        let fingerprint = token.map(|_| fingerprint(&json!(order)));
        let now = self.platform.clock.now();
        let record = TaskRecord::new(id, order, fingerprint, now);
        let Versioned { record, version } = match self.platform.tasks.create(&record, now).await? {
            Created::New(version) => Versioned { record, version },
            Created::Exists(found) if found.record.fingerprint != record.fingerprint => {
                return Err(ApiError::new(
                    Code::TokenConflict,
                    "Data.ClientToken: it was used with other parameters before; use a new one for a new recording",
                ));
            }
            // A Start that was cut off may have left its task without a recorder; a second one at once does no harm.
            Created::Exists(found) if found.record.generation == 0 && found.record.status == Status::Normal => *found,
            Created::Exists(found) => return Ok(task_id(&found.record.id)),
        };
        let event = RecorderEvent { task: record.id.clone(), generation: None };
        if let Err(error) = self.platform.continuation.invoke(&event).await {
            // Without a recorder there is no task. Should one have been started after all, it has the task in hand by now,
            // or finds none and ends.
            if self.platform.tasks.delete(&record.id, version).await? {
                return Err(error.into());
            }
        }
        tracing::info!(task_id = record.id, request_id, "task started");
        Ok(task_id(&record.id))
    }

    async fn command(&self, data: &Fields<'_>, kind: CommandKind) -> Answer {
        let id = id(data)?;
        change(&self.platform, id, |task| task.command(kind)).await?;
        Ok(task_id(id))
    }

    async fn stop(&self, data: &Fields<'_>) -> Answer {
        let id = id(data)?;
        let now = self.platform.clock.now();
        change(&self.platform, id, |task| task.stop(now)).await?;
        Ok(task_id(id))
    }

    async fn describe(&self, data: &Fields<'_>) -> Answer {
        let id = id(data)?;
        let found = self.platform.tasks.load(id, self.platform.clock.now()).await?;
        let record = found.ok_or_else(|| ApiError::unknown_task(id))?.record;
        let mut map = task_json(&record);
        match preview(&self.platform, &record).await {
            Ok(Some(links)) => drop(map.insert("Preview".into(), preview_json(links).into())),
            Ok(None) => {}
            // The task is what was asked for.
            Err(error) => tracing::warn!(error = %chain(&error), "no address of what there is to see"),
        }
        Ok(map)
    }

    async fn list(&self, data: &Fields<'_>) -> Answer {
        data.only(&["Status", "Limit", "NextToken"])?;
        let shelf = match data.string("Status")? {
            None | Some("all") => Shelf::All,
            Some("running") => Shelf::Running,
            Some("finished") => Shelf::Finished,
            Some(other) => {
                let other = other.escape_debug();
                return Err(data.refuse("Status", format!("`{other}` is not one of all, running, finished")));
            }
        };
        let limit = data.integer("Limit", 1..=LIST_MAX)?.unwrap_or(LIST_DEFAULT);
        let after = match data.string("NextToken")? {
            Some(token) => Some(cursor(token).ok_or_else(|| data.refuse("NextToken", "not one that List answered"))?),
            None => None,
        };
        let page = self.platform.tasks.list(shelf, limit, after.as_ref(), self.platform.clock.now()).await?;
        let mut map = Map::new();
        map.insert("Tasks".into(), page.records.iter().map(|t| Value::Object(task_json(t))).collect());
        if let Some(next) = page.next {
            map.insert("NextToken".into(), URL_SAFE_NO_PAD.encode(json!(next).to_string()).into());
        }
        Ok(map)
    }
}

fn task_id(id: &str) -> Map<String, Value> {
    Map::from_iter([("TaskID".to_string(), Value::from(id))])
}

/// Ids are ours: anything else names no task, and need not be looked for.
fn id<'a>(data: &Fields<'a>) -> Result<&'a str, ApiError> {
    data.only(&["TaskID"])?;
    let id = data.needed("TaskID", "the TaskID that Start answered")?;
    if Uuid::try_parse(id).is_ok_and(|parsed| parsed.to_string() == id) {
        return Ok(id);
    }
    Err(ApiError::unknown_task(&id.chars().take(64).collect::<String>()))
}

fn cursor(token: &str) -> Option<Cursor> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()
}

/// Says whether two requests have the same parameters, without keeping what may be secret in them.
fn fingerprint(order: &Value) -> String {
    Sha256::digest(order.to_string()).iter().map(|b| format!("{b:02x}")).collect()
}
