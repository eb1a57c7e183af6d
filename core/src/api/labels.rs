//! Every label and annotation key, every fixed object name and every port that Linkspan reads or writes.
//!
//! The `mirror.linkerd.io` and `multicluster.linkerd.io` keys are those of Linkerd multicluster, so that its users'
//! manifests and habits work unchanged; the `linkspan.dev` keys are our own.

/// Label on a Service, set by users: `true` exports it to linked clusters.
pub const EXPORTED: &str = "mirror.linkerd.io/exported";
/// Label on mirrors, Linkerd's form.
pub const MIRRORED_SERVICE: &str = "mirror.linkerd.io/mirrored-service";
/// Label on mirrors, the form that tutorials select by.
pub const MIRRORED: &str = "mirror.linkerd.io/mirrored";
/// Label on mirrors and their slices: the name of the Link they come from.
pub const CLUSTER_NAME: &str = "mirror.linkerd.io/cluster-name";
/// Label on a per-pod mirror: the headless root mirror it belongs to.
pub const HEADLESS_MIRROR_SVC_NAME: &str = "mirror.linkerd.io/headless-mirror-svc-name";
/// Annotation on mirrors: `<service>.<namespace>.svc.<domain>` in the target cluster.
pub const REMOTE_SVC_FQ_NAME: &str = "mirror.linkerd.io/remote-svc-fq-name";
/// Annotation on mirrors: resource version of the Service in the target cluster.
pub const REMOTE_RESOURCE_VERSION: &str = "mirror.linkerd.io/remote-resource-version";
/// Annotation on mirrors' slices: the SPIFFE URI the target gateway must prove.
pub const REMOTE_GATEWAY_IDENTITY: &str = "mirror.linkerd.io/remote-gateway-identity";
/// Annotation on a Link: `linkspan/cli <version>`.
pub const CREATED_BY: &str = "linkerd.io/created-by";

/// Annotation on a Service, set by users: TCP ports (names or numbers, comma separated) that may be called from
/// outside. Absent: all.
pub const EXPORT_PORTS: &str = "linkspan.dev/export-ports";
/// Label on a ServiceAccount that linked clusters sign in with.
pub const LINK_ACCOUNT: &str = "linkspan.dev/link-account";
/// Annotation on our slices: the Link whose gateway serves them.
pub const SLICE_LINK: &str = "linkspan.dev/link";
/// Annotation on our slices: `<service>.<namespace>` or `<host>.<service>.<namespace>` in the target cluster.
pub const SLICE_TARGET: &str = "linkspan.dev/target";
/// Annotation on our slices: `<port of the gateway>=<port of the remote Service>`, comma separated.
pub const SLICE_PORTS: &str = "linkspan.dev/ports";
/// Label on an ExportedService and annotation on a mirror: namespace of the Service.
pub const EXPORT_NAMESPACE: &str = "linkspan.dev/service-namespace";
/// Selector key and label, both `true`, on the apex of a TrafficSplit; label `shadow` on its shadow. Kubernetes copies a
/// Service's labels to its slices, so all slices of a split carry it too.
pub const SPLIT: &str = "linkspan.dev/split";
/// Value of [`SPLIT`] on a shadow.
pub const SHADOW: &str = "shadow";
/// Label on the shadow of a split's apex, and so on its slices: the name of the apex.
pub const SPLIT_APEX: &str = "linkspan.dev/split-apex";
/// Annotation on our slices of an apex: what the gateway does with its traffic, see `core::api::split`.
pub const SPLIT_ROUTE: &str = "linkspan.dev/split-route";
/// Annotation on Services, Linkerd's: ports (numbers, ranges, names) that are never looked into.
pub const OPAQUE_PORTS: &str = "config.linkerd.io/opaque-ports";

/// Label that says who keeps an EndpointSlice, set by Kubernetes' convention.
pub const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Label that ties an EndpointSlice to its Service, set by Kubernetes' convention.
pub const SLICE_SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Value of [`SLICE_MANAGED_BY`] on our slices.
pub const MANAGED_BY: &str = "linkspan.dev";
/// Field manager of everything the controller writes, and the name of its Lease.
pub const FIELD_MANAGER: &str = "linkspan-mirror-controller";

/// Namespace of an installation, unless another is asked for.
pub const NAMESPACE: &str = "linkspan";
/// Deployment, ServiceAccount and Service of the gateway.
pub const GATEWAY: &str = "linkspan-gateway";
/// Deployment, ServiceAccount and Lease of the mirror controller.
pub const CONTROLLER: &str = "linkspan-mirror-controller";
/// The ServiceAccount that `link` uses unless told otherwise.
pub const REMOTE_ACCESS_ACCOUNT: &str = "linkspan-remote-access-default";
/// Signer of certificates for linked clusters' gateways.
pub const SIGNER: &str = "linkspan.dev/gateway-client";
/// Port name on the gateway Service that tunnels arrive at.
pub const GATEWAY_PORT_NAME: &str = "mc-gateway";
/// Port that tunnels arrive at.
pub const GATEWAY_PORT: u16 = 4143;
/// Port name of the admin page in both parts.
pub const ADMIN_PORT_NAME: &str = "admin";
/// Container port of the admin page (`/metrics /live /ready`) in both parts.
pub const ADMIN_PORT: u16 = 9999;
/// Label on our pods: which part of the installation they are.
pub const COMPONENT: &str = "app.kubernetes.io/component";
/// First and last port that mirrors may be given at the gateway, below Linux' ephemeral range.
pub const EGRESS_PORTS: (u16, u16) = (10_000, 32_767);
