//! What a mirror's Service looks like.

use crate::{
    desired::{is_root, ports::MirrorPort},
    link::view::LinkView,
    snapshot::{Key, Origin},
};
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::api::ObjectMeta;
use linkspan_core::api::{
    copying,
    exported_service::ExportedServiceSpec,
    labels::{
        CLUSTER_NAME, EXPORT_NAMESPACE, HEADLESS_MIRROR_SVC_NAME, MIRRORED, MIRRORED_SERVICE,
        REMOTE_GATEWAY_IDENTITY, REMOTE_RESOURCE_VERSION, REMOTE_SVC_FQ_NAME,
    },
};

/// The Service under `key` that mirrors `origin`. Every field that the API server would fill in is written, so that a
/// comparison sees foreign additions.
pub(super) fn service(
    key: &Key,
    link: &LinkView,
    origin: &Origin,
    export: &ExportedServiceSpec,
    ports: &[MirrorPort],
) -> Service {
    let ports = ports.iter().map(|port| ServicePort {
        name: Some(port.name.clone()).filter(|name| !name.is_empty()),
        protocol: Some("TCP".to_owned()),
        port: i32::from(port.port),
        target_port: Some(IntOrString::Int(i32::from(port.target))),
        app_protocol: port.app_protocol.clone(),
        node_port: None,
    });
    Service {
        metadata: metadata(key, link, origin, export),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: is_root(origin, export).then(|| "None".to_owned()),
            ip_family_policy: Some("PreferDualStack".to_owned()),
            internal_traffic_policy: Some("Cluster".to_owned()),
            session_affinity: Some("None".to_owned()),
            ports: Some(ports.collect()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn metadata(key: &Key, link: &LinkView, origin: &Origin, export: &ExportedServiceSpec) -> ObjectMeta {
    let mut labels = copying::copied(&export.labels, &link.excluded_labels);
    labels.insert(MIRRORED_SERVICE.to_owned(), "true".to_owned());
    labels.insert(MIRRORED.to_owned(), "true".to_owned());
    labels.insert(CLUSTER_NAME.to_owned(), link.name.clone());
    if origin.host.is_some() {
        labels
            .insert(HEADLESS_MIRROR_SVC_NAME.to_owned(), format!("{}-{}", origin.service, link.cluster_name));
    }
    let mut annotations = copying::copied(&export.annotations, &link.excluded_annotations);
    let host = origin.host.as_ref().map(|h| format!("{h}.")).unwrap_or_default();
    let name = format!("{host}{}.{}.svc.{}", origin.service, origin.namespace, link.domain);
    annotations.insert(REMOTE_SVC_FQ_NAME.to_owned(), name);
    annotations.insert(EXPORT_NAMESPACE.to_owned(), origin.namespace.clone());
    if !link.gateway_identity.is_empty() {
        annotations.insert(REMOTE_GATEWAY_IDENTITY.to_owned(), link.gateway_identity.clone());
    }
    if origin.host.is_none() {
        annotations.insert(REMOTE_RESOURCE_VERSION.to_owned(), export.resource_version.clone());
    }
    ObjectMeta {
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        labels: Some(labels),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    }
}
