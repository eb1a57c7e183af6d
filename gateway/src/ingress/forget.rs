//! Counters of Services that are no longer exported, and of accounts that are gone, go with them.

use crate::{
    record::{Direction, FlowLabels, Metrics},
    source::Tables,
};
use linkspan_core::api::names::Target;

/// Forgets for as long as anything can change.
pub async fn forget(tables: Tables, metrics: Metrics) {
    let (mut exports, mut accounts) = (tables.exports.subscribe(), tables.accounts.subscribe());
    loop {
        tokio::select! {
            changed = exports.changed() => if changed.is_err() { return },
            changed = accounts.changed() => if changed.is_err() { return },
        }
        let lives = |account: &str| tables.accounts.read(|table| table.uid(account).is_some());
        metrics.forget_accounts(lives);
        metrics.forget(|labels| {
            let account_gone = !labels.link.is_empty() && !lives(&labels.link);
            let service_gone = !labels.service.is_empty() && !is_exported(labels, &tables);
            labels.direction == Direction::inbound && (account_gone || service_gone)
        });
    }
}

fn is_exported(labels: &FlowLabels, tables: &Tables) -> bool {
    let target = Target {
        host: None,
        service: labels.service.clone(),
        namespace: labels.namespace.clone(),
        port: labels.port,
    };
    tables.services.read(|services| services.is_exported(&target))
}
