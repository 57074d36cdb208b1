//! A task record as an item: the record itself as JSON, and beside it what conditions, index and removal go by.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::super::error::own;
use crate::platform::{Cursor, StoreError, StoreErrorKind, Versioned};
use crate::task::record::TaskRecord;

pub(super) type Item = HashMap<String, AttributeValue>;

pub(super) const ID: &str = "id";
pub(super) const VERSION: &str = "version";
pub(super) const SHELF: &str = "shelf";
pub(super) const SORT: &str = "sort";
pub(super) const EXPIRES: &str = "expires";
const TTL: &str = "ttl";
const BODY: &str = "body";

/// Values of [`SHELF`].
pub(super) const RUNNING: &str = "running";
pub(super) const FINISHED: &str = "finished";

/// Largest record as JSON. DynamoDB takes 400 KB, but every save is paid and throttled by its size, and what grows with
/// the length of a recording does not belong in the record.
const MAX_BODY_BYTES: usize = 100 << 10;

pub(super) fn number(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// Sorts by age; the id breaks ties. Twenty digits hold every number of milliseconds.
pub(super) fn sort_of(cursor: &Cursor) -> String {
    format!("{:020}#{}", cursor.created, cursor.id)
}

/// The position that [`sort_of`] was made of.
pub(super) fn cursor_of(sort: &str) -> Option<Cursor> {
    let (created, id) = sort.split_once('#')?;
    Some(Cursor { created: created.parse().ok()?, id: id.to_owned() })
}

pub(super) fn write(op: &'static str, record: &TaskRecord, version: u64) -> Result<Item, StoreError> {
    let refuse = |reason: String| own(op, &record.id, StoreErrorKind::Refused, reason);
    let body = serde_json::to_string(record).map_err(|e| refuse(e.to_string()))?;
    if body.len() > MAX_BODY_BYTES {
        let reason = format!("the record has {} bytes; at most {MAX_BODY_BYTES} are kept: order less", body.len());
        return Err(refuse(reason));
    }
    let text = |value: &str| AttributeValue::S(value.to_owned());
    let sort = sort_of(&Cursor { created: record.created, id: record.id.clone() });
    Ok(Item::from([
        (ID.to_owned(), text(&record.id)),
        (VERSION.to_owned(), number(version)),
        (SHELF.to_owned(), text(if record.running() { RUNNING } else { FINISHED })),
        (SORT.to_owned(), text(&sort)),
        (EXPIRES.to_owned(), number(record.expires)),
        // Whole seconds, and never too early.
        (TTL.to_owned(), number(record.expires.div_ceil(1000))),
        (BODY.to_owned(), AttributeValue::S(body)),
    ]))
}

pub(super) fn parse(op: &'static str, item: &Item) -> Result<Versioned, StoreError> {
    let id = item.get(ID).and_then(|v| v.as_s().ok()).map_or("?", String::as_str);
    let refuse = |reason: String| own(op, id, StoreErrorKind::Refused, reason);
    let version = item.get(VERSION).and_then(|v| v.as_n().ok()?.parse().ok());
    let body = item.get(BODY).and_then(|v| v.as_s().ok());
    let (Some(version), Some(body)) = (version, body) else {
        return Err(refuse("the item is no task record; is this the right table?".into()));
    };
    let record = serde_json::from_str(body);
    let record =
        record.map_err(|e| refuse(format!("the record was written by another version ({e}); deploy that one")))?;
    Ok(Versioned { record, version })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::order::Order;

    #[test]
    fn a_record_survives_being_an_item() {
        let record = TaskRecord::new("t#1".into(), Order::of("https://example.com/"), None, 1_234);
        let item = write("save", &record, 7).unwrap();
        assert_eq!(parse("load", &item).unwrap(), Versioned { record: record.clone(), version: 7 });
        let ttl: u64 = item[TTL].as_n().unwrap().parse().unwrap();
        assert!(ttl * 1000 >= record.expires && ttl * 1000 < record.expires + 1000, "{ttl}");
    }

    #[test]
    fn positions_sort_like_ages_and_can_be_read_back() {
        let cursor = |created, id: &str| Cursor { created, id: id.into() };
        let cursors = [cursor(9, "b"), cursor(10, "a"), cursor(10, "b#c"), cursor(u64::MAX, "")];
        let sorts: Vec<String> = cursors.iter().map(sort_of).collect();
        assert!(sorts.is_sorted(), "{sorts:?}");
        for (cursor, sort) in cursors.iter().zip(&sorts) {
            assert_eq!(cursor_of(sort).as_ref(), Some(cursor));
        }
        assert_eq!(cursor_of("nonsense"), None);
    }

    #[test]
    fn a_record_that_grew_too_large_is_refused_with_its_size_and_the_bound() {
        let mut record = TaskRecord::new("t".into(), Order::of("https://example.com/"), None, 1_234);
        record.order.page_title = Some("x".repeat(MAX_BODY_BYTES));
        let refused = write("save", &record, 1).unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Refused);
        assert!(refused.source.to_string().contains("102400"), "{}", refused.source);
    }

    #[test]
    fn an_item_of_somebody_else_is_an_error_that_names_it() {
        let foreign = Item::from([(ID.to_owned(), AttributeValue::S("x".into()))]);
        let refused = parse("load", &foreign).unwrap_err();
        assert_eq!((refused.kind, refused.key.as_str()), (StoreErrorKind::Refused, "x"));
    }
}
