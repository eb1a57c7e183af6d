//! Where the tables come from: the Kubernetes API, or one file.

pub mod file;
pub mod kubernetes;
pub mod rows;

use crate::{
    egress::{pod_table::PodTable, port_table::PortTable},
    ingress::{account_table::AccountTable, service_table::ServiceTable},
    mtls::credentials::Credentials,
    shared::Shared,
    tunnel::link_table::LinkTable,
};
use std::sync::Arc;
use tokio::sync::watch;

/// Everything the gateway works from.
#[derive(Clone)]
pub struct Tables {
    /// Ports of our slices.
    pub ports: Arc<Shared<PortTable>>,
    /// Callers.
    pub pods: Arc<Shared<PodTable>>,
    /// Linked clusters.
    pub links: Arc<Shared<LinkTable>>,
    /// Exports and endpoints.
    pub services: Arc<Shared<ServiceTable>>,
    /// Counts changes of the exports alone.
    pub exports: watch::Sender<u64>,
    /// Accounts of linked clusters.
    pub accounts: Arc<Shared<AccountTable>>,
    /// Key material.
    pub credentials: watch::Sender<Arc<Credentials>>,
    /// Why the newest configuration is not in force.
    pub problem: watch::Sender<Option<String>>,
}

impl Tables {
    /// Nothing known yet.
    pub fn empty() -> Self {
        Self {
            ports: Arc::default(),
            pods: Arc::default(),
            links: Arc::default(),
            services: Arc::default(),
            exports: watch::Sender::new(0),
            accounts: Arc::default(),
            credentials: watch::Sender::new(Arc::default()),
            problem: watch::Sender::new(None),
        }
    }

    /// Changes what is exported, and tells live flows.
    pub fn update_exports(&self, change: impl FnOnce(&mut ServiceTable) -> bool) {
        let mut changed = false;
        self.services.update(|services| {
            changed = change(services);
            changed
        });
        if changed {
            self.exports.send_modify(|n| *n = n.wrapping_add(1));
        }
    }
}
