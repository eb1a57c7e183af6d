//! What the gateways do with the traffic of a split's apex, as the controller tells them on its slices.
//!
//! The controller alone reads TrafficSplits: it works out which backends a split really has, tells what is wrong with
//! it in one place, and writes the result as an annotation on the slices that send the apex's traffic to the gateways.
//! So what a gateway does changes in one step with where the traffic goes, and gateways need no rights on splits.

use crate::api::{
    labels::{SPLIT_APEX, SPLIT_ROUTE},
    names::Target,
    route_group::RouteMatch,
    slice::SliceRoute,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Largest annotation, in bytes: an object's annotations may have 256 KiB in all.
pub const MAX_ROUTE: usize = 200 * 1024;
/// Ports that are never looked into unless a Service's annotation says otherwise, as in Linkerd: protocols in which
/// the server speaks first, or that are no HTTP for certain.
pub const OPAQUE: [u16; 8] = [25, 587, 3306, 4444, 5432, 6379, 9300, 11211];

/// What the gateways do with the traffic of one apex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SplitRoute {
    /// Name of the TrafficSplit.
    pub split: String,
    /// The apex.
    pub apex: String,
    /// Whether each client address keeps to one backend and endpoint.
    #[serde(default)]
    pub affinity: bool,
    /// By port of the gateway.
    pub ports: BTreeMap<u16, SplitPort>,
}

/// One port of an apex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPort {
    /// The apex's port.
    pub port: u16,
    /// Its name; empty for an only port.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Who serves it.
    pub backends: Vec<SplitBackend>,
    /// When there are any: only requests that one of these selects are shared out, all others go to the apex's pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<RouteMatch>,
}

/// What is spoken at a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1, or HTTP/2 with prior knowledge: shared out by request.
    Http,
    /// Anything: shared out by connection.
    Opaque,
    /// The gateway finds out.
    #[default]
    Detect,
}

/// One backend of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitBackend {
    /// The Service, in the namespace of the split.
    pub service: String,
    /// Its share in thousandths, relative to those of the others.
    pub weight: u64,
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Place {
    /// In this cluster: the pods of the Service, at its port of this name.
    Local(String),
    /// Behind a link.
    Link(Remote),
}

/// A Service of a linked cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Name of the Link.
    pub link: String,
    /// `[<host>.]<service>.<namespace>:<port>` there.
    #[serde(with = "target_text")]
    pub target: Target,
}

mod target_text {
    use super::Target;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(target: &Target, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(target)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Target, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl SplitRoute {
    /// Reads the annotation of a slice; `None` when it has none.
    ///
    /// # Errors
    /// When it was changed by hand into something else.
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Option<Result<Self, String>> {
        let text = annotations.get(SPLIT_ROUTE)?;
        Some(serde_json::from_str(text).map_err(|e| format!("annotation {SPLIT_ROUTE} cannot be read: {e}")))
    }

    /// The gateway's ports and what they stand for, without a link: the apex's own ports in `namespace`.
    pub fn slice_route(&self, namespace: &str) -> SliceRoute {
        let target = |port: &SplitPort| Target {
            host: None,
            service: self.apex.clone(),
            namespace: namespace.to_owned(),
            port: port.port,
        };
        SliceRoute {
            link: String::new(),
            ports: self.ports.iter().map(|(ours, port)| (*ours, target(port))).collect(),
        }
    }

    /// The annotation that says the same.
    pub fn to_annotation(&self) -> (String, String) {
        // Strings, numbers and maps by number always serialize.
        (SPLIT_ROUTE.to_owned(), serde_json::to_string(self).unwrap_or_default())
    }
}

/// The Service whose pods a slice with these labels lists: of a shadow's slices that is the apex, whose selector
/// matches nothing while it is split.
pub fn served_by<'a>(labels: &'a BTreeMap<String, String>, service: &str) -> Option<&'a str> {
    labels.get(SPLIT_APEX).or_else(|| labels.get(service)).map(String::as_str)
}

/// Name of the shadow of `apex`: a Service with the apex's selector, for which Kubernetes keeps the slices of the apex's
/// pods.
pub fn shadow_name(apex: &str) -> String {
    const SUFFIX: &str = "-linkspan-split";
    let longest = crate::api::names::MAX_SERVICE_NAME - SUFFIX.len();
    if apex.len() <= longest {
        return format!("{apex}{SUFFIX}");
    }
    // FNV-1a: two long names that begin alike get different shadows.
    let hash = apex.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    format!("{}-{hash:08x}{SUFFIX}", apex[..longest - 9].trim_end_matches('-'))
}

/// What is spoken at a Service's port, by what is declared. `opaque` are the ports of the annotation that applies, if
/// there is one; `numbers` are the port's own number and those of the pods' ports.
pub fn protocol(app_protocol: Option<&str>, name: &str, numbers: &[u16], opaque: Option<&str>) -> Protocol {
    let listed = match opaque {
        Some(list) => list.split(',').map(str::trim).any(|item| is_listed(item, name, numbers)),
        None => numbers.iter().any(|number| OPAQUE.contains(number)),
    };
    let declared = app_protocol.map(str::to_ascii_lowercase);
    match declared.as_deref() {
        _ if listed && opaque.is_some() => Protocol::Opaque,
        Some("http" | "http2" | "h2c" | "grpc" | "ws" | "kubernetes.io/h2c" | "kubernetes.io/ws") => {
            Protocol::Http
        }
        Some(_) => Protocol::Opaque,
        None if listed => Protocol::Opaque,
        None => Protocol::Detect,
    }
}

fn is_listed(item: &str, name: &str, numbers: &[u16]) -> bool {
    if !name.is_empty() && item == name {
        return true;
    }
    let (from, to) = item.split_once('-').unwrap_or((item, item));
    match (from.trim().parse::<u16>(), to.trim().parse::<u16>()) {
        (Ok(from), Ok(to)) => numbers.iter().any(|number| (from..=to).contains(number)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_route_is_read_back() {
        let remote = Remote { link: "west".to_owned(), target: "my-api.default:8080".parse().unwrap() };
        let backend =
            |service: &str, weight, place| SplitBackend { service: service.to_owned(), weight, place };
        let port = SplitPort {
            port: 8080,
            name: "http".to_owned(),
            protocol: Protocol::Detect,
            backends: vec![
                backend("my-api", 80_000, Place::Local("http".to_owned())),
                backend("my-api-west", 20_000, Place::Link(remote)),
            ],
            matches: vec![RouteMatch { path_regex: Some("/a".to_owned()), ..RouteMatch::default() }],
        };
        let route = SplitRoute {
            split: "s".to_owned(),
            apex: "my-api".to_owned(),
            affinity: true,
            ports: BTreeMap::from([(10_007, port)]),
        };
        let annotations = BTreeMap::from([route.to_annotation()]);
        assert_eq!(SplitRoute::from_annotations(&annotations), Some(Ok(route)));
        let spoilt = BTreeMap::from([(SPLIT_ROUTE.to_owned(), "{}".to_owned())]);
        assert!(SplitRoute::from_annotations(&spoilt).unwrap().is_err());
        assert_eq!(SplitRoute::from_annotations(&BTreeMap::new()), None);
    }

    #[test]
    fn what_is_declared_decides_and_then_the_lists() {
        for (app, name, number, opaque, expected) in [
            (None, "", 8080, None, Protocol::Detect),
            (Some("http"), "", 8080, None, Protocol::Http),
            (Some("HTTP"), "", 3306, None, Protocol::Http),
            (Some("kubernetes.io/h2c"), "", 8080, None, Protocol::Http),
            (Some("https"), "", 8443, None, Protocol::Opaque),
            (Some("mysql"), "", 8080, None, Protocol::Opaque),
            (None, "", 3306, None, Protocol::Opaque),
            (None, "", 3306, Some(""), Protocol::Detect),
            (None, "", 8080, Some("9000, 8000-8090"), Protocol::Opaque),
            (Some("http"), "", 8080, Some("8080"), Protocol::Opaque),
            (None, "db", 8080, Some("db"), Protocol::Opaque),
            (None, "web", 8080, Some("db,x-y"), Protocol::Detect),
        ] {
            assert_eq!(
                protocol(app, name, &[number], opaque),
                expected,
                "{app:?} {name} {number} {opaque:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn shadows_have_names_that_kubernetes_takes(apex in "[a-z]([a-z0-9-]{0,61}[a-z0-9])?") {
            prop_assert!(crate::api::names::is_dns_label(&shadow_name(&apex)), "{}", shadow_name(&apex));
        }
    }

    #[test]
    fn long_names_that_begin_alike_have_shadows_of_their_own() {
        let long = "a".repeat(60);
        assert_ne!(shadow_name(&format!("{long}-x")), shadow_name(&format!("{long}-y")));
    }
}
