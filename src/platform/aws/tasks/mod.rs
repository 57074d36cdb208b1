//! Task records in one DynamoDB table.
//!
//! The table's partition key is `id` (S). An index [`INDEX`] (partition key `shelf`, sort key `sort`, all attributes)
//! lists a shelf by age. `ttl` is the attribute for DynamoDB's own removal, which may be days late, so what is over is
//! filtered here, to the millisecond, by `expires`.
//!
//! Writes are conditional on the version. Such a call must not be repeated when it is unknown whether it went through:
//! the second try would fail its condition because of the first. So it is repeated after throttling only, and every
//! other error leaves it to the caller to read what is there.

mod item;
mod list;
mod retries;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};

use super::Aws;
use super::error::{failed, own};
use crate::platform::{Created, Cursor, Shelf, StoreError, StoreErrorKind, TaskPage, TaskStore, Versioned};
use crate::task::record::TaskRecord;
use item::Item;

/// The index that lists tasks by age.
pub const INDEX: &str = "by-shelf";

/// Task records as items. Reads of one record are consistent; listings follow writes within moments.
#[derive(Clone)]
pub struct DynamoTaskStore {
    /// Reads: the SDK may repeat them.
    reader: Client,
    /// Conditional writes.
    writer: Client,
    table: String,
}

impl DynamoTaskStore {
    /// A store in an existing table.
    pub fn new(aws: &Aws, table: &str) -> Self {
        let writer = aws_sdk_dynamodb::config::Builder::from(&aws.config).retry_classifier(retries::ThrottlingOnly);
        Self { reader: Client::new(&aws.config), writer: Client::from_conf(writer.build()), table: table.to_owned() }
    }

    /// The record as it is, expired or not.
    async fn read(&self, op: &'static str, id: &str) -> Result<Option<Versioned>, StoreError> {
        let key = AttributeValue::S(id.to_owned());
        let call = self.reader.get_item().table_name(&self.table).key(item::ID, key).consistent_read(true);
        let answer = call.send().await.map_err(|e| failed(op, id, e))?;
        answer.item.as_ref().map(|found| item::parse(op, found)).transpose()
    }
}

#[async_trait]
impl TaskStore for DynamoTaskStore {
    async fn create(&self, record: &TaskRecord, now: u64) -> Result<Created, StoreError> {
        // Who still holds a version of a record that expired must not replace the one that came after it.
        let first = now;
        let call = self
            .writer
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item::write("create", record, first)?))
            .condition_expression("attribute_not_exists(#id) OR #expires <= :now")
            .expression_attribute_names("#id", item::ID)
            .expression_attribute_names("#expires", item::EXPIRES)
            .expression_attribute_values(":now", item::number(now))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let Err(error) = call.send().await else { return Ok(Created::New(first)) };
        let Some(PutItemError::ConditionalCheckFailedException(there)) = error.as_service_error() else {
            return Err(failed("create", &record.id, error));
        };
        let there: Option<&Item> = there.item();
        let found = match there {
            Some(found) => Some(item::parse("create", found)?),
            None => self.read("create", &record.id).await?,
        };
        let vanished = || own("create", &record.id, StoreErrorKind::Unavailable, "it was removed just now; try again");
        found.map(|versioned| Created::Exists(Box::new(versioned))).ok_or_else(vanished)
    }

    async fn load(&self, id: &str, now: u64) -> Result<Option<Versioned>, StoreError> {
        Ok(self.read("load", id).await?.filter(|found| found.record.expires > now))
    }

    async fn save(&self, record: &TaskRecord, version: u64) -> Result<Option<u64>, StoreError> {
        let next = version + 1;
        let call = self
            .writer
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item::write("save", record, next)?))
            .condition_expression("#version = :version")
            .expression_attribute_names("#version", item::VERSION)
            .expression_attribute_values(":version", item::number(version));
        match call.send().await {
            Ok(_) => Ok(Some(next)),
            Err(e) if e.as_service_error().is_some_and(PutItemError::is_conditional_check_failed_exception) => Ok(None),
            Err(e) => Err(failed("save", &record.id, e)),
        }
    }

    async fn delete(&self, id: &str, version: u64) -> Result<bool, StoreError> {
        let call = self
            .writer
            .delete_item()
            .table_name(&self.table)
            .key(item::ID, AttributeValue::S(id.to_owned()))
            .condition_expression("#version = :version")
            .expression_attribute_names("#version", item::VERSION)
            .expression_attribute_values(":version", item::number(version));
        match call.send().await {
            Ok(_) => Ok(true),
            Err(e) if e.as_service_error().is_some_and(DeleteItemError::is_conditional_check_failed_exception) => {
                Ok(false)
            }
            Err(e) => Err(failed("delete", id, e)),
        }
    }

    async fn list(&self, shelf: Shelf, limit: u32, after: Option<&Cursor>, now: u64) -> Result<TaskPage, StoreError> {
        list::list(self, shelf, limit as usize, after, now).await
    }
}
