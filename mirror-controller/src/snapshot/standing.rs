//! What is kept of mirrors and slices that stand: what is asked of them, and a print of the rest.
//!
//! Ten thousand Services and slices as the API has them would take a hundred megabytes.

use crate::snapshot::{Key, label, print::Print};
use k8s_openapi::{
    api::{
        core::v1::Service,
        discovery::v1::{Endpoint, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{ResourceExt, api::ObjectMeta};
use linkspan_core::api::{
    labels::{
        CLUSTER_NAME, EXPORT_NAMESPACE, HEADLESS_MIRROR_SVC_NAME, SLICE_MANAGED_BY, SLICE_SERVICE_NAME,
    },
    slice::SliceRoute,
};
use std::net::IpAddr;

/// Which object it is, and in which state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Its uid.
    pub uid: Box<str>,
    /// Its resource version.
    pub version: Box<str>,
}

impl State {
    /// The state of `object`.
    pub fn of(object: &impl ResourceExt) -> Self {
        Self {
            uid: object.uid().unwrap_or_default().into(),
            version: object.resource_version().unwrap_or_default().into(),
        }
    }

    /// Whether this is an older state than `other`. Resource versions of one kind are decimal numbers that grow.
    pub fn is_older(&self, other: &Self) -> bool {
        match (self.version.parse::<u64>(), other.version.parse::<u64>()) {
            (Ok(a), Ok(b)) => a < b,
            _ => false,
        }
    }
}

/// What others wrote into an object and we keep when we write it. Rarely there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// Finalizers.
    pub finalizers: Option<Vec<String>>,
    /// Owners.
    pub owners: Option<Vec<OwnerReference>>,
}

impl Kept {
    fn of(metadata: &ObjectMeta) -> Option<Box<Self>> {
        let kept =
            Self { finalizers: metadata.finalizers.clone(), owners: metadata.owner_references.clone() };
        (kept != Self::default()).then(|| Box::new(kept))
    }
}

/// A Service with the mirror label, as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct StandingService {
    /// Which, and in which state.
    pub state: State,
    /// Label: the link it says it mirrors for.
    pub link: Option<Box<str>>,
    /// Label: the headless root it belongs to.
    pub root: Option<Box<str>>,
    /// Whether it carries an annotation that only we write.
    pub marked: bool,
    /// Whether it is being deleted.
    pub going: bool,
    /// Whether it has no addresses by intention.
    pub headless: bool,
    /// The addresses it was given.
    pub ips: Box<[IpAddr]>,
    /// The families it was given, as the API calls them.
    pub families: Box<[Family]>,
    /// What others wrote.
    pub kept: Option<Box<Kept>>,
    /// All that we decide.
    pub print: Print,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn read(text: &str) -> Self {
        if text == "IPv6" { Self::V6 } else { Self::V4 }
    }

    /// Whether `ip` is of this family.
    pub fn has(self, ip: IpAddr) -> bool {
        ip.is_ipv6() == (self == Self::V6)
    }
}

impl StandingService {
    /// What is kept of `service`.
    pub fn of(service: Service) -> Self {
        let spec = service.spec.as_ref();
        let ips = spec.and_then(|s| s.cluster_ips.as_deref()).unwrap_or_default();
        let families = spec.and_then(|s| s.ip_families.as_deref()).unwrap_or_default();
        let annotations = service.metadata.annotations.as_ref();
        let text = |key| label(&service.metadata, key).map(Box::from);
        Self {
            state: State::of(&service),
            link: text(CLUSTER_NAME),
            root: text(HEADLESS_MIRROR_SVC_NAME),
            marked: annotations.is_some_and(|a| a.contains_key(EXPORT_NAMESPACE)),
            going: service.metadata.deletion_timestamp.is_some(),
            headless: is_headless(&service),
            ips: ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
            families: families.iter().map(|f| Family::read(f)).collect(),
            kept: Kept::of(&service.metadata),
            print: service_print(service),
        }
    }
}

/// Whether `service` has no addresses by intention.
pub fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// The print of all that we decide of a Service: labels, annotations, and its spec but for what the API assigns.
pub fn service_print(mut service: Service) -> Print {
    if let Some(spec) = service.spec.as_mut() {
        (spec.cluster_ip, spec.cluster_ips, spec.ip_families) = (None, None, None);
    }
    Print::of(&(service.metadata.labels, service.metadata.annotations, service.spec))
}

/// A slice of ours, as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct StandingSlice {
    /// Its name.
    pub name: Box<str>,
    /// Which, and in which state.
    pub state: State,
    /// Label: the link it serves.
    pub link: Option<Box<str>>,
    /// Uid of the Service that owns it.
    pub owner: Option<Box<str>>,
    /// Its addresses' family.
    pub family: Family,
    /// The gateway's ports that it names; none for a headless root.
    pub ports: Box<[u16]>,
    /// Finalizers.
    pub finalizers: Option<Box<Vec<String>>>,
    /// All that we decide but the endpoints.
    pub print: Print,
    /// The endpoints.
    pub endpoints: Print,
}

impl StandingSlice {
    /// What is kept of `slice`, and the Service it is kept with.
    pub fn of(slice: &EndpointSlice) -> (Key, Self) {
        let metadata = &slice.metadata;
        let owners = metadata.owner_references.as_deref().unwrap_or_default();
        let owner = owners.iter().find(|owner| owner.kind == "Service").map(|owner| owner.uid.clone().into());
        let route = metadata.annotations.as_ref().and_then(|a| SliceRoute::from_annotations(a).ok());
        let ports = slice.ports.iter().flatten().filter_map(|p| u16::try_from(p.port?).ok());
        let ports = route
            .map(|route| ports.filter(|port| route.ports.contains_key(port)).collect())
            .unwrap_or_default();
        let standing = Self {
            name: slice.name_any().into(),
            state: State::of(slice),
            link: label(metadata, CLUSTER_NAME).map(Box::from),
            owner,
            family: Family::read(&slice.address_type),
            ports,
            finalizers: metadata.finalizers.clone().map(Box::new),
            print: slice_print(slice),
            endpoints: endpoints_print(&slice.endpoints),
        };
        (home(slice), standing)
    }
}

/// The print of all that we decide of a slice but its endpoints.
pub fn slice_print(slice: &EndpointSlice) -> Print {
    let m = &slice.metadata;
    Print::of(&(&m.labels, &m.annotations, &m.owner_references, &slice.address_type, &slice.ports))
}

/// The print of a slice's endpoints.
pub fn endpoints_print(endpoints: &[Endpoint]) -> Print {
    Print::of(&endpoints)
}

/// The Service whose name ours, by its own name, belongs to: a label can be edited, a name cannot. A slice that is not
/// named as ours are goes by its label.
pub fn home(slice: &EndpointSlice) -> Key {
    let name = slice.name_any();
    let by_name = [Family::V4, Family::V6].iter().find_map(|family| {
        name.strip_suffix(family.as_str().to_lowercase().as_str())?.strip_suffix('-').map(str::to_owned)
    });
    let by_label = || label(&slice.metadata, SLICE_SERVICE_NAME).map(str::to_owned);
    let namespace = slice.metadata.namespace.clone().unwrap_or_default();
    let service = by_name.or_else(by_label).unwrap_or(name);
    Key { namespace, name: service }
}

/// A slice that Kubernetes itself made for a Service.
#[derive(Clone, Debug, PartialEq)]
pub struct KubernetesSlice {
    /// Which.
    pub key: Key,
    /// In which state.
    pub state: State,
    /// Uid of the Service that owns it.
    pub owner: Box<str>,
}

impl KubernetesSlice {
    /// What is kept of `slice`, and the Service it belongs to; `None` when nobody of Kubernetes made it.
    pub fn of(slice: &EndpointSlice) -> Option<(Key, Self)> {
        let manager = label(&slice.metadata, SLICE_MANAGED_BY)?;
        let owners = slice.metadata.owner_references.as_deref()?;
        let owner = owners.iter().find(|o| o.kind == "Service" && o.controller == Some(true))?;
        let service =
            Key::new(slice.metadata.namespace.as_deref()?, label(&slice.metadata, SLICE_SERVICE_NAME)?);
        let this = Self { key: Key::of(slice), state: State::of(slice), owner: owner.uid.clone().into() };
        manager.ends_with(".k8s.io").then_some((service, this))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn slice(name: &str, metadata: &Value) -> EndpointSlice {
        let mut slice: EndpointSlice =
            from_value(json!({"metadata": metadata, "addressType": "IPv4", "endpoints": []})).unwrap();
        slice.metadata.name = Some(name.to_owned());
        slice.metadata.namespace = Some("shop".to_owned());
        slice
    }

    #[test]
    fn a_slice_of_ours_belongs_where_its_name_says_whatever_its_label_says() {
        let labelled = json!({"labels": {"kubernetes.io/service-name": "other"}});
        assert_eq!(home(&slice("api-west-ipv4", &labelled)), Key::new("shop", "api-west"));
        assert_eq!(home(&slice("api-west-ipv6", &json!({}))), Key::new("shop", "api-west"));
        assert_eq!(home(&slice("x-77", &labelled)), Key::new("shop", "other"));
        assert_eq!(home(&slice("x-77", &json!({}))), Key::new("shop", "x-77"));
    }

    #[test]
    fn only_what_kubernetes_made_and_a_service_owns_is_a_slice_of_kubernetes() {
        let made = |manager: &str, owners: Value| {
            let labels =
                json!({"kubernetes.io/service-name": "a", "endpointslice.kubernetes.io/managed-by": manager});
            KubernetesSlice::of(&slice("a-x", &json!({"labels": labels, "ownerReferences": owners})))
                .is_some()
        };
        let owner =
            json!([{"apiVersion": "v1", "kind": "Service", "name": "a", "uid": "u", "controller": true}]);
        assert!(made("endpointslice-controller.k8s.io", owner.clone()));
        assert!(!made("tests.example", owner));
        assert!(!made("endpointslice-controller.k8s.io", json!([])));
    }
}
