//! What each Link needs to reach its target cluster: access to the target's API, a client certificate that the target
//! signed, and the bundle that its gateway is checked by.
//!
//! To mount it, give [`run`] a [`CredentialsContext`]; it watches the Links itself and keeps one task per Link:
//!
//! ```text
//! let board = credentials::AccessBoard::default();
//! tasks.spawn(credentials::run(CredentialsContext { client, namespace, leader, clock, shutdown, exchange, board }));
//! let access: watch::Receiver<LinkAccess> = board.subscribe("west");   // any time, before or after
//! ```
//!
//! A follower takes `access.client` (present once it has been seen to work; `generation` tells a replacement), and puts
//! `condition`, `token_expires_at` and `certificate_expires_at` into the Link's status. Certificates and bundles go to
//! the gateways by way of the [`crate::issuer::Exchange`]; a follower has nothing to do for them.
//!
//! Nothing is written here or in the target cluster while `leader` holds `false`; a standby reads along.
//!
//! # Rights
//!
//! | where | what | verbs |
//! |---|---|---|
//! | this cluster, namespace | `links.multicluster.linkerd.io` | list, watch |
//! | this cluster, namespace | `secrets` | create; list and watch of `cluster-credentials-<link>`; get, list, watch, update of `cluster-credentials-<link>-live` |
//! | this cluster, namespace | `configmaps` | list and watch of `link-ca-bundle-<link>` |
//! | target cluster, its namespace | `configmaps` | get, list, watch of `linkspan-ca-bundle` |
//! | target cluster, its namespace | `serviceaccounts/token` | create, for the account itself |
//! | target cluster | `certificatesigningrequests` | create, get |
//!
//! A token that does not say whose it is takes `create` of `selfsubjectreviews` too, which every account has.

pub mod access_keeper;
pub mod access_step;
pub mod board;
pub mod certificate_keeper;
pub mod certificate_need;
pub mod desk;
pub mod finding;
pub mod kubeconfig;
pub mod peer_bundle;
pub mod remote_api;
pub mod supervisor;
pub mod token;

pub use board::{AccessBoard, LinkAccess};
pub use finding::CREDENTIALS_VALID;

use crate::issuer::Exchange;
use kube::Client;
use linkspan_core::process::{clock::Clock, shutdown::Shutdown};
use tokio::sync::watch;

/// What the keepers of credentials work with.
#[derive(Clone)]
pub struct CredentialsContext {
    /// This cluster's API.
    pub client: Client,
    /// Namespace of the installation, where the Links are.
    pub namespace: String,
    /// Whether this replica may write.
    pub leader: watch::Receiver<bool>,
    /// The time of day.
    pub clock: Clock,
    /// When to stop.
    pub shutdown: Shutdown,
    /// What [`crate::issuer`] holds and needs.
    pub exchange: Exchange,
    /// Where each link's state is told.
    pub board: AccessBoard,
}

/// Keeps the credentials of every Link in the namespace until the shutdown.
///
/// # Errors
/// When the watch of the Links ended.
pub async fn run(context: CredentialsContext) -> anyhow::Result<()> {
    supervisor::run(context).await
}
