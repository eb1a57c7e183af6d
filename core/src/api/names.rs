//! How things are named after other things.

use std::{fmt, str::FromStr};

/// Longest name of a Service: it is a DNS label (RFC 1123).
pub const MAX_SERVICE_NAME: usize = 63;

/// Why something cannot be named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The mirror's name would not fit a DNS label.
    #[error("mirror name {0} has {len} characters, at most {MAX_SERVICE_NAME} are possible: shorten the Service's or the link's name", len = .0.len())]
    TooLong(String),
    /// A link name that cannot end a Service's name.
    #[error(
        "link name {0:?} cannot be part of a Service name: use lower-case letters, digits and '-', no dots"
    )]
    LinkName(String),
    /// A text that names no Service of a target cluster.
    #[error("{0:?} is not of the form [<host>.]<service>.<namespace>:<port>")]
    Target(String),
}

/// Whether `text` is a DNS label (RFC 1123): what Kubernetes accepts as Service and namespace names.
pub fn is_dns_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty()
        && text.len() <= MAX_SERVICE_NAME
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The name of the mirror of `service` that link `link` brings: `<service>-<link>`.
///
/// # Errors
/// When the result is no DNS label.
pub fn mirror_name(service: &str, link: &str) -> Result<String, NameError> {
    if !is_dns_label(link) {
        return Err(NameError::LinkName(link.to_owned()));
    }
    let name = format!("{service}-{link}");
    if name.len() > MAX_SERVICE_NAME {
        return Err(NameError::TooLong(name));
    }
    Ok(name)
}

/// The name of the ExportedService object of Service `service` in `namespace`: `<namespace>.<service>`.
pub fn export_name(namespace: &str, service: &str) -> String {
    format!("{namespace}.{service}")
}

/// Name of the Secret with the credentials for link `link`, written by `link-cli link`.
pub fn credentials_secret(link: &str) -> String {
    format!("cluster-credentials-{link}")
}

/// Name of the Secret in which the controller keeps the renewed credentials of link `link`.
pub fn live_credentials_secret(link: &str) -> String {
    format!("cluster-credentials-{link}-live")
}

/// Name of the ConfigMap with the CA bundle of the cluster behind link `link`.
pub fn link_bundle_config_map(link: &str) -> String {
    format!("link-ca-bundle-{link}")
}

/// Where a flow wants to go in the target cluster: a port of a Service, or of one pod of a headless Service.
/// Written `[<host>.]<service>.<namespace>:<port>`; Service names and namespaces hold no dots.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Host name of one pod of a headless Service.
    pub host: Option<String>,
    /// The Service.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// The Service's port.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}.")?;
        }
        write!(f, "{}.{}:{}", self.service, self.namespace, self.port)
    }
}

impl FromStr for Target {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NameError::Target(text.chars().take(256).collect());
        let (name, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && !port.starts_with('0');
        let port = port.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
        let parts: Vec<&str> = name.split('.').collect();
        let (host, service, namespace) = match parts[..] {
            [service, namespace] => (None, service, namespace),
            [host, service, namespace] => (Some(host), service, namespace),
            _ => return Err(wrong()),
        };
        if ![Some(service), Some(namespace), host].into_iter().flatten().all(is_dns_label) {
            return Err(wrong());
        }
        Ok(Self {
            host: host.map(str::to_owned),
            service: service.to_owned(),
            namespace: namespace.to_owned(),
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LABEL: &str = "[a-z]([a-z0-9-]{0,10}[a-z0-9])?";

    proptest! {
        #[test]
        fn a_target_is_read_back(host in proptest::option::of(LABEL), service in LABEL, namespace in LABEL, port in 1u16..) {
            let target = Target { host, service, namespace, port };
            prop_assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,100}") {
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_eq!(target.to_string(), text);
            }
        }
    }

    #[test]
    fn tricks_in_targets_are_refused() {
        for text in [
            "",
            ":80",
            "a:80",
            "a.b:0",
            "a.b:080",
            "a.b:+80",
            "a.b:65536",
            "A.b:80",
            "a..b:80",
            "a.b.c.d:80",
            "a.b/c:80",
            "a.b :80",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn mirrors_are_named_after_service_and_link() {
        assert_eq!(mirror_name("my-api", "cluster-west").unwrap(), "my-api-cluster-west");
        assert!(matches!(mirror_name("my-api", "west.example"), Err(NameError::LinkName(_))));
        assert!(matches!(mirror_name(&"a".repeat(60), "west"), Err(NameError::TooLong(_))));
    }
}
