//! A task as Describe, List and callbacks tell it. Nothing secret of the order is in it.

use serde_json::{Map, Value, json};

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
    let result = result(task);
    if !result.is_empty() {
        map.insert("Result".into(), result.into());
    }
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
