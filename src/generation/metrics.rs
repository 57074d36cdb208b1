//! What came of a recorder invocation as one line of CloudWatch's embedded metric format (Amazon CloudWatch user guide,
//! "Specification: Embedded metric format"): the platform makes metrics of what stands in the log, without a call.

use serde_json::{Value, json};

use crate::task::record::TaskRecord;

/// Namespace of all metrics.
pub const NAMESPACE: &str = "panorec";

/// What one invocation has to tell.
#[derive(Debug, Clone, Copy, Default)]
pub struct Measured {
    /// Chunks that were stored.
    pub uploads: u64,
    /// Calls to stores and invocations that were tried again.
    pub retries: u64,
    /// Longest time between two renewals of the lease.
    pub lease_age_ms: u64,
}

/// The line.
pub fn line(task: &TaskRecord, measured: Measured, now: u64) -> Value {
    let quality = task.result.quality.as_ref();
    let metrics = [
        ("FramesDelivered", "Count", quality.map_or(0, |q| q.frames_delivered)),
        ("FramesDropped", "Count", quality.map_or(0, |q| q.frames_dropped)),
        ("Underruns", "Count", quality.map_or(0, |q| q.underruns)),
        ("Uploads", "Count", measured.uploads),
        ("Retries", "Count", measured.retries),
        ("LeaseAge", "Milliseconds", measured.lease_age_ms),
        ("Failed", "Count", u64::from(task.result.failure.is_some())),
    ];
    let definitions: Vec<Value> = metrics.iter().map(|(name, unit, _)| json!({"Name": name, "Unit": unit})).collect();
    let mut line = json!({
        "_aws": {
            "Timestamp": now,
            "CloudWatchMetrics": [{"Namespace": NAMESPACE, "Dimensions": [[]], "Metrics": definitions}],
        },
        "TaskID": task.id,
        "Generation": task.generation,
    });
    for (name, _, value) in metrics {
        line[name] = value.into();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::order::Order;

    #[test]
    fn every_metric_that_is_defined_has_a_value_and_the_other_way_round() {
        let task = TaskRecord::new("t".into(), Order::of("https://example.com/"), None, 1);
        let line = line(&task, Measured { uploads: 7, retries: 1, lease_age_ms: 2600 }, 5);
        let definitions = line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap();
        assert_eq!(definitions.len(), line.as_object().unwrap().len() - 3);
        assert!(definitions.iter().all(|d| line[d["Name"].as_str().unwrap()].is_u64()), "{line}");
        assert_eq!((&line["Uploads"], &line["_aws"]["Timestamp"]), (&json!(7), &json!(5)));
    }
}
