//! Reads Services that a split names and the watch passed over before it did.

use super::{Splitter, call};
use crate::{snapshot::Key, split::watch::without_status};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Service;
use kube::Api;

/// So many are read at a time.
const AT_A_TIME: usize = 8;

impl Splitter {
    /// Whether everything that splits name is known.
    pub(super) async fn read_unread(&self) -> bool {
        let unread = self.read(|table| table.services.unread());
        let mut reads = stream::iter(unread).map(|key| self.read_service(key)).buffer_unordered(AT_A_TIME);
        let mut all = true;
        while let Some(read) = reads.next().await {
            all &= read;
        }
        all
    }

    async fn read_service(&self, key: Key) -> bool {
        let api = Api::<Service>::namespaced(self.client.clone(), &key.namespace);
        match call(api.get_opt(&key.name)).await {
            Ok(service) => {
                self.change(|table| table.services.answered(&key, service.map(without_status)));
                true
            }
            Err(error) => {
                tracing::warn!(service = %key, error, "a Service that a split names cannot be read; trying again");
                false
            }
        }
    }
}
