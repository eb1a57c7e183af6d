//! A Link's fields, read: what gateways need of it, and what decides which Services are mirrored.

use crate::api::{
    duration::parse_duration,
    identity::Identity,
    labels::GATEWAY_PORT,
    link::{LinkSpec, ProbeSpec},
    names::is_dns_label,
};
use std::time::Duration;

/// A Link's spec, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkSettings {
    /// Host names or IP addresses to start from, in the given order.
    pub gateway_hosts: Vec<String>,
    /// Port of the target's gateway.
    pub gateway_port: u16,
    /// Who the target's gateway must prove to be.
    pub gateway_identity: Identity,
    /// Probing.
    pub probe: ProbeSettings,
}

/// Probing, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// Time between probes.
    pub period: Duration,
    /// Time allowed for an answer; at most one second, so that death is seen in time.
    pub timeout: Duration,
    /// Failures in a row until the gateway counts as dead; at least one.
    pub failure_threshold: u32,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self { period: Duration::from_secs(1), timeout: Duration::from_secs(1), failure_threshold: 3 }
    }
}

/// A field of a Link that cannot be used: which, what stands there, and what should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field} is {value:?}: {expected}")]
pub struct LinkError {
    /// Path below `spec`.
    pub field: &'static str,
    /// What stands there; empty when absent.
    pub value: String,
    /// What should stand there.
    pub expected: String,
}

impl LinkSpec {
    /// Reads the fields that gateways need.
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub fn settings(&self) -> Result<LinkSettings, LinkError> {
        let error = |field, value: &Option<String>, expected: &str| LinkError {
            field,
            value: value.clone().unwrap_or_default(),
            expected: expected.to_owned(),
        };
        let hosts = self.gateway_address.as_deref().unwrap_or_default();
        let gateway_hosts: Vec<String> =
            hosts.split(',').map(str::trim).filter(|h| !h.is_empty()).map(str::to_owned).collect();
        let gateway_port = match self.gateway_port.as_deref().map(str::trim) {
            None | Some("") => GATEWAY_PORT,
            Some(port) => port.parse().ok().filter(|p| *p > 0).ok_or_else(|| {
                error("gatewayPort", &self.gateway_port, "a port from 1 to 65535 is expected")
            })?,
        };
        let gateway_identity = self
            .gateway_identity
            .as_deref()
            .unwrap_or_default()
            .parse()
            .map_err(|e| error("gatewayIdentity", &self.gateway_identity, &format!("{e}")))?;
        let probe = self.probe_spec.as_ref().map_or(Ok(ProbeSettings::default()), ProbeSpec::settings)?;
        Ok(LinkSettings { gateway_hosts, gateway_port, gateway_identity, probe })
    }

    /// Checks the fields that decide what is mirrored of the Link named `link`, and from where.
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub fn mirroring(&self, link: &str) -> Result<(), LinkError> {
        let error = |field, value: &str, expected: &str| LinkError {
            field,
            value: value.to_owned(),
            expected: expected.to_owned(),
        };
        let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        let cluster = given(&self.target_cluster_name).unwrap_or_else(|| link.to_owned());
        if !is_dns_label(&cluster) {
            let expected = "lower-case letters, digits and '-' are expected, at most 63 and no dots: mirrors' names end in it";
            return Err(error("targetClusterName", &cluster, expected));
        }
        if let Some(namespace) = given(&self.target_cluster_linkerd_namespace).filter(|n| !is_dns_label(n)) {
            return Err(error(
                "targetClusterLinkerdNamespace",
                &namespace,
                "the name of a namespace is expected",
            ));
        }
        let names = [
            (
                "targetClusterDomain",
                &self.target_cluster_domain,
                "a DNS name such as cluster.local is expected",
            ),
            (
                "clusterCredentialsSecret",
                &self.cluster_credentials_secret,
                "the name of a Secret is expected",
            ),
        ];
        for (field, text, expected) in names {
            if let Some(text) = given(text).filter(|text| !text.split('.').all(is_dns_label)) {
                return Err(error(field, &text, expected));
            }
        }
        let rules = self.selector.iter().flat_map(|s| s.match_expressions.iter().flatten());
        for rule in rules {
            let needs_values = match rule.operator.as_str() {
                "In" | "NotIn" => true,
                "Exists" | "DoesNotExist" => false,
                other => {
                    let expected = "In, NotIn, Exists or DoesNotExist is expected";
                    return Err(error("selector.matchExpressions.operator", other, expected));
                }
            };
            if needs_values == rule.values.as_ref().is_none_or(Vec::is_empty) {
                let expected = "In and NotIn need values, Exists and DoesNotExist must have none";
                return Err(error("selector.matchExpressions.values", &rule.key, expected));
            }
        }
        Ok(())
    }

    /// The Secret with the credentials for the target cluster of the Link named `link`.
    pub fn credentials_secret(&self, link: &str) -> String {
        self.cluster_credentials_secret
            .clone()
            .filter(|s| !s.is_empty())
            .unwrap_or_else(|| crate::api::names::credentials_secret(link))
    }

    /// The DNS domain of the target cluster.
    pub fn target_domain(&self) -> &str {
        self.target_cluster_domain.as_deref().filter(|d| !d.is_empty()).unwrap_or("cluster.local")
    }
}

impl ProbeSpec {
    fn settings(&self) -> Result<ProbeSettings, LinkError> {
        let default = ProbeSettings::default();
        let time = |field, text: &Option<String>, default| match text.as_deref() {
            None | Some("") => Ok(default),
            Some(given) => parse_duration(given).filter(|d| !d.is_zero()).ok_or_else(|| LinkError {
                field,
                value: given.to_owned(),
                expected: "a positive duration such as 1s or 500ms is expected".to_owned(),
            }),
        };
        let failure_threshold = match self.failure_threshold.as_deref() {
            None | Some("") => default.failure_threshold,
            Some(given) => given.parse().ok().filter(|n| *n > 0).ok_or_else(|| LinkError {
                field: "probeSpec.failureThreshold",
                value: given.to_owned(),
                expected: "a whole number of at least 1 is expected".to_owned(),
            })?,
        };
        Ok(ProbeSettings {
            period: time("probeSpec.period", &self.period, default.period)?,
            timeout: time("probeSpec.timeout", &self.timeout, default.timeout)?.min(default.timeout),
            failure_threshold,
        })
    }
}

#[cfg(test)]
mod tests;
