//! The form of the file: what may be written where. `gateway/CONFIG.md` lists these fields; a test compares them.

use serde::Deserialize;
use std::{net::SocketAddr, path::PathBuf};

/// The file. Unknown keys are refused.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FileConfig {
    /// Who this gateway is to those that call it.
    pub server: ServerConfig,
    /// Who may call: linked clusters by the account in their certificates.
    #[serde(default)]
    pub accounts: Vec<Account>,
    /// Gateways of other clusters.
    #[serde(default)]
    pub peers: Vec<PeerConfig>,
    /// Ports of this gateway that lead to a Service of a peer.
    #[serde(default)]
    pub listeners: Vec<ListenerConfig>,
    /// What callers may reach here: everything that is listed, and nothing else.
    #[serde(default)]
    pub services: Vec<ServiceConfig>,
}

/// Who this gateway is to those that call it.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServerConfig {
    /// PEM file with the certificate and what leads to its CA; its one URI says who we are.
    pub certificate: PathBuf,
    /// PEM file with the certificate's private key.
    pub key: PathBuf,
    /// PEM file with the CAs that sign callers' certificates.
    pub bundle: PathBuf,
    /// Serial numbers of callers' certificates that are denied, in hex.
    #[serde(default)]
    pub denied_serials: Vec<String>,
}

/// An account that a linked cluster calls as.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Account {
    /// Its name: the last part of the URI in the caller's certificate.
    pub name: String,
    /// Its uid: subject attribute 1.3.6.1.4.1.57683.2 of the caller's certificate.
    pub uid: String,
}

/// A gateway of another cluster.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PeerConfig {
    /// What listeners call it: a DNS label.
    pub name: String,
    /// Where it is: `host:port`, all of them.
    pub addresses: Vec<String>,
    /// The URI that its certificate must have.
    pub identity: String,
    /// PEM file with the certificate to call with, which the peer's CA signed.
    pub certificate: PathBuf,
    /// PEM file with that certificate's private key.
    pub key: PathBuf,
    /// PEM file with the CAs that sign the peer's certificate.
    pub bundle: PathBuf,
}

/// A port that leads to a Service of a peer.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ListenerConfig {
    /// The port, on the address of the flag --egress-addr.
    pub port: u16,
    /// A peer's name.
    pub peer: String,
    /// What it leads to: `<service>.<namespace>:<port>`.
    pub target: String,
}

/// A Service that callers may reach.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServiceConfig {
    /// Its name: `<service>.<namespace>`.
    pub name: String,
    /// Its ports.
    pub ports: Vec<PortConfig>,
}

/// A port of a Service.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PortConfig {
    /// The port that callers name.
    pub port: u16,
    /// Where connections go: `ip:port`, the least loaded of two at random.
    pub endpoints: Vec<SocketAddr>,
}
