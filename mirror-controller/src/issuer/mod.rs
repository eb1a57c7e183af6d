//! What this cluster vouches for: its CA, the bundle that linked clusters trust it by, the key material of its
//! gateways, and the certificates of linked clusters' gateways.
//!
//! To mount it, give [`run`] an [`IssuerContext`]; it ends when the shutdown starts, or with the error of a part that
//! broke. It shares an [`Exchange`] with [`crate::credentials`]:
//!
//! ```text
//! let trust_domain = issuer::trust_domain(&client).await?;
//! let exchange = issuer::Exchange::default();
//! tasks.spawn(issuer::run(IssuerContext { client, namespace, ca_dir, trust_domain, leader, clock, shutdown, exchange }));
//! ```
//!
//! Nothing is written while `leader` holds `false`.
//!
//! # Rights
//!
//! | where | what | verbs |
//! |---|---|---|
//! | cluster | `namespaces` named `kube-system` | get |
//! | cluster | `certificatesigningrequests` | list, watch |
//! | cluster | `certificatesigningrequests/approval`, `certificatesigningrequests/status` | update |
//! | cluster | `signers` named `linkspan.dev/gateway-client` | approve, sign |
//! | namespace | `serviceaccounts` | get |
//! | namespace | `secrets` | create; get, list, watch of `linkspan-ca`, `linkspan-gateway-tls`; update of the latter |
//! | namespace | `configmaps` | create; get, list, watch, update of `linkspan-ca-bundle`, `linkspan-gateway-trust` |

pub mod api_call;
pub mod bundle;
pub mod ca;
pub mod ca_history;
pub mod ca_keeper;
pub mod certificate;
pub mod exchange;
pub mod gateway_tls;
pub mod gateway_tls_keeper;
pub mod request;
pub mod review;
pub mod signer;
#[cfg(test)]
mod testing;

pub use exchange::{Exchange, Held, Peer, Validity, Wanted};
#[cfg(test)]
pub(crate) use testing::{sign_as_the_target, test_ca};

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt};
use linkspan_core::{
    api::identity::TrustDomain,
    process::{clock::Clock, shutdown::Shutdown},
};
use std::path::PathBuf;
use tokio::{sync::watch, task::JoinSet};

/// What the issuer works with.
#[derive(Clone)]
pub struct IssuerContext {
    /// This cluster's API.
    pub client: Client,
    /// Namespace of the installation.
    pub namespace: String,
    /// Folder with the CA (`tls.crt`, `tls.key`), where it does not come from, and is not made in, its Secret.
    pub ca_dir: Option<PathBuf>,
    /// This cluster's trust domain, see [`trust_domain`].
    pub trust_domain: TrustDomain,
    /// Whether this replica may write.
    pub leader: watch::Receiver<bool>,
    /// The time of day.
    pub clock: Clock,
    /// When to stop.
    pub shutdown: Shutdown,
    /// What [`crate::credentials`] brings and needs.
    pub exchange: Exchange,
}

/// The trust domain of the cluster behind `client`.
///
/// # Errors
/// When the namespace `kube-system` cannot be read.
pub async fn trust_domain(client: &Client) -> anyhow::Result<TrustDomain> {
    let namespace = Api::<Namespace>::all(client.clone())
        .get("kube-system")
        .await
        .context("namespace kube-system cannot be read, and its uid is the cluster's id; the controller's ClusterRole must allow get on it")?;
    let uid = namespace.uid().context("namespace kube-system has no uid")?;
    Ok(TrustDomain::of_cluster(&uid)?)
}

/// Keeps CA, bundle and the gateways' key material, and signs for linked clusters, until the shutdown.
///
/// # Errors
/// When a part of it broke.
pub async fn run(context: IssuerContext) -> anyhow::Result<()> {
    let (ca, current) = watch::channel(None);
    let mut parts = JoinSet::new();
    parts.spawn(ca_keeper::run(context.clone(), ca));
    let (told, bundle) = watch::channel(None);
    parts.spawn(bundle::run(context.clone(), bundle));
    parts.spawn(gateway_tls_keeper::run(context.clone(), current.clone(), told));
    parts.spawn(signer::run(context.clone(), current));
    while let Some(ended) = parts.join_next().await {
        ended.context("a part of the issuer broke")?;
        if !context.shutdown.has_started() {
            anyhow::bail!("a part of the issuer ended before its time");
        }
    }
    Ok(())
}
