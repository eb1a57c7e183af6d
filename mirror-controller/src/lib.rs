//! The controller of Linkspan: publishes what is exported, mirrors what linked clusters export, and vouches for gateways.
//!
//! ```text
//! exporter: Services, slices -> ExportedServices                     what linked clusters may see
//! link/ + observe/: Links, credentials -> target's ExportedServices  one set of tasks per link
//! gateways/ -> liveness/                                             what the gateway pods say
//!    -> snapshot -> desired/ -> diff -> (plan)                       pure: values in, values out
//!    -> reconcile -> apply                                           the only writer; leader only
//!    -> status/, metrics, GET /links                                 what people see
//! ```
//!
//! # Rights
//!
//! What this crate apart from [`issuer`] and [`credentials`] asks of this cluster's API:
//!
//! | where | what | verbs |
//! |---|---|---|
//! | cluster | `namespaces` | get, list, watch; create where missing ones are to be made |
//! | cluster | `services` | list, watch, get, create, update, patch, delete |
//! | cluster | `endpointslices.discovery.k8s.io` | list, watch, create, update, patch, delete |
//! | cluster | `trafficsplits.split.smi-spec.io`, `httproutegroups.specs.smi-spec.io` | list, watch |
//! | cluster | `trafficsplits.split.smi-spec.io/status` | patch |
//! | cluster | `networkpolicies.networking.k8s.io` | list, watch |
//! | cluster | `pods` | list |
//! | cluster | `events.events.k8s.io` | create |
//! | namespace | `deployments.apps` | get of `linkspan-mirror-controller` |
//! | namespace | `links.multicluster.linkerd.io` | list, watch |
//! | namespace | `links.multicluster.linkerd.io/status` | patch |
//! | namespace | `exportedservices.linkspan.dev` | list, watch, create, update, delete |
//! | namespace | `leases.coordination.k8s.io` | create; get and update of `linkspan-mirror-controller` |
//! | namespace | `configmaps` | create; get and patch of `linkspan-ports` |
//!
//! and of a target cluster's, in its installation's namespace: list and watch of `exportedservices.linkspan.dev`, and
//! list and watch of Service `linkspan-gateway` by field selector `metadata.name`. Endpoint slices refer to their
//! Service with `controller: true` but without `blockOwnerDeletion`, so no right on finalizers is needed.

pub mod app;
pub mod apply;
pub mod config;
pub mod credentials;
pub mod desired;
pub mod diff;
pub mod exporter;
#[cfg(test)]
mod fixtures;
pub mod gateways;
pub mod issuer;
pub mod leader;
pub mod link;
pub mod liveness;
pub mod metrics;
pub mod observe;
mod pause;
pub mod plan;
pub mod ports;
pub mod reconcile;
pub mod snapshot;
pub mod split;
pub mod status;
pub mod world;
