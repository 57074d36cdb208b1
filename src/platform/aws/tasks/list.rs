//! Listing by age: a query of the index for each shelf, and both merged for all.

use aws_sdk_dynamodb::types::AttributeValue;

use super::super::error::failed;
use super::DynamoTaskStore;
use super::item::{self, Item};
use crate::platform::{Cursor, Shelf, StoreError, TaskPage};
use crate::task::record::TaskRecord;

/// Queries for one page of a shelf. Expired records are skipped after they were read, so without a bound a heap of them
/// could hold a caller for minutes; with it the page is short, or empty, and the next one goes on from there.
const MAX_QUERIES: usize = 16;
/// Records that one query reads at most.
const MAX_QUERIED: usize = 200;

/// What was found of a shelf, newest first, with the sort keys.
struct Found {
    records: Vec<(String, TaskRecord)>,
    /// There may be more, older than this.
    frontier: Option<String>,
}

pub(super) async fn list(
    store: &DynamoTaskStore,
    shelf: Shelf,
    limit: usize,
    after: Option<&Cursor>,
    now: u64,
) -> Result<TaskPage, StoreError> {
    let bound = after.map(item::sort_of);
    // Running before finished: who changes shelves in between is found twice, not never.
    let shelves: &[&str] = match shelf {
        Shelf::All => &[item::RUNNING, item::FINISHED],
        Shelf::Running => &[item::RUNNING],
        Shelf::Finished => &[item::FINISHED],
    };
    let mut found = Vec::new();
    for shelf in shelves {
        found.push(query(store, shelf, limit, bound.as_deref(), now).await?);
    }
    Ok(merge(found, limit))
}

/// One page of several shelves: as far down as all of them are known.
fn merge(found: Vec<Found>, limit: usize) -> TaskPage {
    let frontier = found.iter().filter_map(|f| f.frontier.clone()).max();
    let mut all: Vec<_> = found.into_iter().flat_map(|f| f.records).collect();
    all.sort_by(|a, b| b.0.cmp(&a.0));
    all.dedup_by(|a, b| a.0 == b.0);
    if let Some(frontier) = &frontier {
        all.retain(|(sort, _)| sort >= frontier);
    }
    let next = match all.len() {
        n if n > limit => all.get(limit - 1).map(|(sort, _)| sort.clone()),
        _ => frontier,
    };
    all.truncate(limit);
    TaskPage {
        records: all.into_iter().map(|(_, record)| record).collect(),
        next: next.and_then(|s| item::cursor_of(&s)),
    }
}

async fn query(
    store: &DynamoTaskStore,
    shelf: &str,
    limit: usize,
    bound: Option<&str>,
    now: u64,
) -> Result<Found, StoreError> {
    let mut records: Vec<(String, TaskRecord)> = Vec::new();
    let mut bound = bound.map(str::to_owned);
    for _ in 0..MAX_QUERIES {
        let (items, last) = page(store, shelf, limit - records.len(), bound.as_deref(), now).await?;
        for found in &items {
            if let Some(sort) = found.get(item::SORT).and_then(|v| v.as_s().ok()) {
                records.push((sort.clone(), item::parse("list", found)?.record));
            }
        }
        if last.is_none() || records.len() >= limit {
            return Ok(Found { records, frontier: last });
        }
        bound = last;
    }
    Ok(Found { records, frontier: bound })
}

/// One query, and where it ended if there may be more.
async fn page(
    store: &DynamoTaskStore,
    shelf: &str,
    limit: usize,
    bound: Option<&str>,
    now: u64,
) -> Result<(Vec<Item>, Option<String>), StoreError> {
    let text = |value: &str| AttributeValue::S(value.to_owned());
    let mut call = store
        .reader
        .query()
        .table_name(&store.table)
        .index_name(super::INDEX)
        .scan_index_forward(false)
        .limit(limit.min(MAX_QUERIED) as i32)
        .filter_expression("#expires > :now")
        .expression_attribute_names("#expires", item::EXPIRES)
        .expression_attribute_values(":now", item::number(now))
        .expression_attribute_names("#shelf", item::SHELF)
        .expression_attribute_values(":shelf", text(shelf));
    call = match bound {
        None => call.key_condition_expression("#shelf = :shelf"),
        Some(bound) => call
            .key_condition_expression("#shelf = :shelf AND #sort < :sort")
            .expression_attribute_names("#sort", item::SORT)
            .expression_attribute_values(":sort", text(bound)),
    };
    let answer = call.send().await.map_err(|e| failed("list", shelf, e))?;
    let last = answer.last_evaluated_key.as_ref().and_then(|key| key.get(item::SORT)?.as_s().ok().cloned());
    Ok((answer.items.unwrap_or_default(), last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::order::Order;

    fn found(created: &[u64], frontier: Option<u64>) -> Found {
        let sort = |created| item::sort_of(&Cursor { created, id: "t".into() });
        let record = |created| TaskRecord::new("t".into(), Order::of("https://example.com/"), None, created);
        let records = created.iter().map(|&c| (sort(c), record(c))).collect();
        Found { records, frontier: frontier.map(sort) }
    }

    fn page(found: Vec<Found>, limit: usize) -> (Vec<u64>, Option<u64>) {
        let page = merge(found, limit);
        (page.records.iter().map(|r| r.created).collect(), page.next.map(|c| c.created))
    }

    #[test]
    fn shelves_merge_newest_first_and_a_task_that_changed_shelves_appears_once() {
        assert_eq!(page(vec![found(&[9, 5, 2], None), found(&[8, 5], None)], 10), (vec![9, 8, 5, 2], None));
        assert_eq!(page(vec![found(&[9, 5, 2], None), found(&[8, 5], None)], 3), (vec![9, 8, 5], Some(5)));
    }

    #[test]
    fn nothing_is_skipped_where_one_shelf_is_known_less_far_down() {
        assert_eq!(page(vec![found(&[9, 7], Some(7)), found(&[8, 3], None)], 10), (vec![9, 8, 7], Some(7)));
        assert_eq!(page(vec![found(&[], Some(6)), found(&[3], Some(1))], 10), (vec![], Some(6)));
        assert_eq!(page(vec![found(&[9], Some(9)), found(&[9, 8], Some(8))], 1), (vec![9], Some(9)));
    }
}
