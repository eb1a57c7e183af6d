//! The form of the file: what may be written where. `gateway/CONFIG.md` lists these fields; a test compares them.

use linkspan_core::api::split::Protocol;
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
    /// Ports of this gateway whose traffic is shared out among Services of peers.
    #[serde(default)]
    pub splits: Vec<SplitConfig>,
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

/// A port whose traffic is shared out among Services of peers.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SplitConfig {
    /// What it is counted as: `<service>.<namespace>`.
    pub name: String,
    /// The port, on the address of the flag --egress-addr.
    pub port: u16,
    /// What is spoken there: `http` is shared out by request, `opaque` by connection, `detect` looks.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "String"))]
    pub protocol: Protocol,
    /// Whether each client address keeps to one backend.
    #[serde(default)]
    pub affinity: bool,
    /// Among whom.
    pub backends: Vec<SplitBackendConfig>,
}

/// A Service of a peer that gets a share.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SplitBackendConfig {
    /// What it is counted as: a DNS label.
    pub name: String,
    /// A peer's name.
    pub peer: String,
    /// What it is: `<service>.<namespace>:<port>`.
    pub target: String,
    /// Its share, relative to those of the others.
    pub weight: u32,
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
