//! DynamoDB in this process: dynoxide, an empty table for each test.

use std::net::Ipv4Addr;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType,
};
use dynoxide::Database;

use super::{SECRET, config};

pub const TABLE: &str = "tasks";

/// Lives as long as the test's runtime.
pub struct Tables {
    pub endpoint: String,
    pub client: Client,
}

impl Tables {
    /// With the table that a deployment has.
    pub async fn new() -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(dynoxide::server::serve_on(listener, Database::memory().unwrap()));
        let client = Client::new(&config(&endpoint, SECRET).await);
        Self::create(&client).await;
        Self { endpoint, client }
    }

    /// Makes that table.
    pub async fn create(client: &Client) {
        let attribute = |name| {
            let kind = ScalarAttributeType::S;
            AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap()
        };
        let key = |name, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap();
        let index = GlobalSecondaryIndex::builder()
            .index_name("by-shelf")
            .key_schema(key("shelf", KeyType::Hash))
            .key_schema(key("sort", KeyType::Range))
            .projection(Projection::builder().projection_type(ProjectionType::All).build());
        let made = client
            .create_table()
            .table_name(TABLE)
            .billing_mode(BillingMode::PayPerRequest)
            .key_schema(key("id", KeyType::Hash))
            .set_attribute_definitions(Some(["id", "shelf", "sort"].map(attribute).into()))
            .global_secondary_indexes(index.build().unwrap());
        // A server that is still starting up may answer the first try too late, and have done it.
        match made.send().await.map_err(|error| error.into_service_error()) {
            Ok(_) => {}
            Err(error) if error.is_resource_in_use_exception() => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}
