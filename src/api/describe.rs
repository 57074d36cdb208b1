//! A task as Describe, List and callbacks tell it. Nothing secret of the order is in it.

use serde_json::{Map, Value, json};

use crate::generation::Links;
use crate::task::record::TaskRecord;
use crate::task::status::Status;

/// The task without a `RequestID`. Times are unix seconds, absent until they happen.
pub fn task_json(task: &TaskRecord) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("TaskID".into(), task.id.as_str().into());
    map.insert("Status".into(), task.status.word().into());
    let times = [
        ("CreateTime", Some(task.created)),
        ("StartTime", task.started),
        ("CancelTime", task.canceled),
        ("StopTime", task.stopped),
        ("FinishTime", task.finished),
    ];
    for (name, time) in times {
        if let Some(ms) = time {
            map.insert(name.into(), (ms / 1000).into());
        }
    }
    if let Some(callback) = callback(task) {
        map.insert("Callback".into(), callback.into());
    }
    let result = result(task);
    if !result.is_empty() {
        map.insert("Result".into(), result.into());
    }
    map
}

/// How the calls to `CallbackURL` go: the one that comes next, or the last one where none is left.
fn callback(task: &TaskRecord) -> Option<Map<String, Value>> {
    let waiting = task.calls.head();
    let call = waiting.or(task.calls.last().map(|past| &past.call))?;
    let mut map = Map::new();
    map.insert("Event".into(), call.event.word().into());
    map.insert("Tries".into(), call.tries.into());
    if let Some(status) = call.answer {
        map.insert("LastStatus".into(), status.into());
    }
    if let Some(error) = &call.error {
        map.insert("LastError".into(), error.as_str().into());
    }
    if waiting.is_some() {
        map.insert("NextTime".into(), (call.next / 1000).into());
    }
    map.insert("Delivered".into(), (waiting.is_none() && task.calls.last().is_some_and(|past| past.delivered)).into());
    if task.calls.lost() > 0 {
        map.insert("Lost".into(), task.calls.lost().into());
    }
    Some(map)
}

/// What there is to see of a task that runs.
pub fn preview_json(links: Links) -> Map<String, Value> {
    let mut map = Map::new();
    if let Some(playlist) = links.playlist {
        map.insert("PlaylistURL".into(), playlist.into());
    }
    if let Some(picture) = links.picture {
        map.insert("PictureURL".into(), picture.into());
    }
    map.insert("ExpireTime".into(), (links.expires / 1000).into());
    map
}

fn result(task: &TaskRecord) -> Map<String, Value> {
    let mut map = Map::new();
    if let Some(failure) = &task.result.failure {
        map.insert("ErrorCode".into(), json!(failure.code));
        map.insert("ErrorMessage".into(), failure.message.as_str().into());
    }
    if !task.result.videos.is_empty() || task.status == Status::Finished {
        map.insert("Videos".into(), json!(task.result.videos));
    }
    if let Some(quality) = &task.result.quality {
        let mut quality = json!(quality);
        quality["Generations"] = task.generation.into();
        quality["BilledGbSeconds"] = json!((task.result.billed_gb_seconds * 1000.0).round() / 1000.0);
        map.insert("Quality".into(), quality);
    }
    map
}
