//! A store for players that asks before every call.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::platform::{Place, PublicObject, PublicStore, StoreError};

/// `guard` has the key of a call and what is to be stored there, and says whether it comes to the store.
pub struct Guarded<G> {
    pub port: Arc<dyn PublicStore>,
    pub guard: G,
}

#[async_trait]
impl<G: Fn(&str, Option<&PublicObject>) -> Result<(), StoreError> + Send + Sync> PublicStore for Guarded<G> {
    async fn put(&self, place: &Place, key: &str, object: PublicObject) -> Result<(), StoreError> {
        (self.guard)(key, Some(&object))?;
        self.port.put(place, key, object).await
    }
    async fn replace(
        &self,
        place: &Place,
        key: &str,
        object: PublicObject,
        seen: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        (self.guard)(key, Some(&object))?;
        self.port.replace(place, key, object, seen).await
    }
    async fn read(&self, place: &Place, key: &str) -> Result<Option<(Bytes, String)>, StoreError> {
        (self.guard)(key, None)?;
        self.port.read(place, key).await
    }
    async fn link(&self, place: &Place, key: &str, lifetime: Duration) -> Result<String, StoreError> {
        self.port.link(place, key, lifetime).await
    }
}
