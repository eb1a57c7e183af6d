//! Fills the tables from one YAML file, for machines without Kubernetes (`--config FILE`).
//!
//! ```yaml
//! server:                        # who we are to callers; paths are relative to this file
//!   certificate: server.crt      # PEM; its one URI says who we are
//!   key: server.key
//!   bundle: own-ca.crt           # callers must be signed by one of these
//!   deniedSerials: []            # hex; optional
//! accounts:                      # who may call: account name and uid in the caller's certificate; optional
//!   - name: east
//!     uid: 0b7e7f3a
//! peers:                         # gateways of other clusters; optional
//!   - name: west
//!     addresses: ["192.0.2.1:4143", "gateway.example:4143"]
//!     identity: spiffe://<trust domain>/ns/linkspan/sa/linkspan-gateway
//!     certificate: client-west.crt
//!     key: client.key
//!     bundle: west-ca.crt
//! listeners:                     # ports that lead to a Service of a peer; optional
//!   - port: 10007
//!     peer: west
//!     target: my-api.default:8080
//! services:                      # what callers may reach here; optional
//!   - name: my-api.default       # <service>.<namespace>
//!     ports:
//!       - port: 8080
//!         endpoints: ["127.0.0.1:8080"]
//! ```
//!
//! Unknown keys are refused. A file that cannot be used changes nothing.

use crate::{
    egress::port_table::SliceRow as PortRow,
    ingress::service_table::{Endpoint, ServicePort, ServiceRow, SliceRow},
    mtls::credentials::{Credentials, Texts},
    source::Tables,
    tunnel::link_table::LinkRow,
};
use linkspan_core::api::{
    credentials::{DENIED_SERIALS, OWN_BUNDLE, SERVER_CERT, SERVER_KEY, client_cert, peer_bundle},
    link::{LinkSettings, ProbeSettings},
    names::{Target, is_dns_label},
    slice::SliceRoute,
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The file, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FileConfig {
    server: ServerConfig,
    #[serde(default)]
    accounts: Vec<Account>,
    #[serde(default)]
    peers: Vec<PeerConfig>,
    #[serde(default)]
    listeners: Vec<ListenerConfig>,
    #[serde(default)]
    services: Vec<ServiceConfig>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ServerConfig {
    certificate: PathBuf,
    key: PathBuf,
    bundle: PathBuf,
    #[serde(default)]
    denied_serials: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Account {
    name: String,
    uid: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PeerConfig {
    name: String,
    addresses: Vec<String>,
    identity: String,
    certificate: PathBuf,
    key: PathBuf,
    bundle: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ListenerConfig {
    port: u16,
    peer: String,
    target: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ServiceConfig {
    name: String,
    ports: Vec<PortConfig>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PortConfig {
    port: u16,
    endpoints: Vec<SocketAddr>,
}

/// Why a file cannot be used: one sentence that names the place.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file cannot be read.
    #[error("{path} cannot be read: {cause}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// The file is not of the documented form.
    #[error("{path}: {cause}", path = .path.display())]
    Form {
        /// Which.
        path: PathBuf,
        /// Line, column and cause.
        cause: serde_norway::Error,
    },
    /// A value cannot be used.
    #[error("{path}: {place}: {cause}", path = .path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        place: String,
        /// Why.
        cause: String,
    },
}

/// Everything that goes into the tables, read and checked.
pub struct Loaded {
    texts: Texts,
    accounts: BTreeMap<String, String>,
    links: BTreeMap<String, Result<LinkRow, String>>,
    ports: BTreeMap<(String, String), PortRow>,
    services: BTreeMap<(String, String), ServiceRow>,
    slices: Vec<((String, String), SliceRow)>,
}

/// Reads `path` and the files it names.
///
/// # Errors
/// The first thing that cannot be used.
pub fn load(path: &Path) -> Result<Loaded, FileError> {
    let text = read(path)?;
    let form = |cause| FileError::Form { path: path.to_owned(), cause };
    let config: FileConfig = serde_norway::from_slice(&text).map_err(form)?;
    let value = |place: String, cause: String| FileError::Value { path: path.to_owned(), place, cause };
    let texts = texts(&config, path.parent().unwrap_or(Path::new(".")))?;
    let problems = Credentials::read(&texts).problems;
    if let Some(problem) = problems.into_iter().next() {
        return Err(value("server, peers".to_owned(), problem));
    }
    let mut loaded = Loaded {
        texts,
        accounts: config.accounts.iter().map(|a| (a.name.clone(), a.uid.clone())).collect(),
        links: BTreeMap::new(),
        ports: BTreeMap::new(),
        services: BTreeMap::new(),
        slices: Vec::new(),
    };
    for (i, peer) in config.peers.iter().enumerate() {
        let row = link_row(peer).map_err(|(field, cause)| value(format!("peers[{i}].{field}"), cause))?;
        loaded.links.insert(peer.name.clone(), Ok(row));
    }
    for (i, listener) in config.listeners.iter().enumerate() {
        let (key, row) = port_row(listener, &loaded.links)
            .map_err(|(field, cause)| value(format!("listeners[{i}].{field}"), cause))?;
        if loaded.ports.insert(key, row).is_some() {
            return Err(value(format!("listeners[{i}].port"), "this port is used twice".to_owned()));
        }
    }
    for (i, service) in config.services.iter().enumerate() {
        add_service(service, &mut loaded).map_err(|cause| value(format!("services[{i}].name"), cause))?;
    }
    Ok(loaded)
}

impl Loaded {
    /// Puts everything into the tables.
    pub fn publish(self, tables: &Tables) {
        tables.credentials.send_replace(Arc::new(Credentials::read(&self.texts)));
        tables.accounts.update(|table| table.reset(self.accounts));
        tables.update_exports(|table| {
            table.reset_slices(self.slices);
            table.reset_services(self.services)
        });
        tables.links.update(|table| table.reset(self.links));
        tables.ports.update(|table| table.reset(self.ports));
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(|cause| FileError::Read { path: path.to_owned(), cause })
}

fn texts(config: &FileConfig, base: &Path) -> Result<Texts, FileError> {
    let text = |path: &Path| read(&base.join(path)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let server = &config.server;
    let mut secret = BTreeMap::from([
        (SERVER_CERT.to_owned(), read(&base.join(&server.certificate))?),
        (SERVER_KEY.to_owned(), read(&base.join(&server.key))?),
    ]);
    let mut trust = BTreeMap::from([
        (OWN_BUNDLE.to_owned(), text(&server.bundle)?),
        (DENIED_SERIALS.to_owned(), server.denied_serials.join("\n")),
    ]);
    for peer in &config.peers {
        secret.insert(client_cert(&peer.name), read(&base.join(&peer.certificate))?);
        secret.insert(format!("client-{}.key", peer.name), read(&base.join(&peer.key))?);
        trust.insert(peer_bundle(&peer.name), text(&peer.bundle)?);
    }
    Ok(Texts { secret: Some(secret), trust: Some(trust) })
}

type Misplaced = (&'static str, String);

fn link_row(peer: &PeerConfig) -> Result<LinkRow, Misplaced> {
    let identity = peer.identity.parse().map_err(|e| ("identity", format!("{e}")))?;
    let settings = LinkSettings {
        gateway_hosts: Vec::new(),
        gateway_port: 0,
        gateway_identity: identity,
        probe: ProbeSettings::default(),
    };
    let row = LinkRow::new(settings, &peer.addresses);
    if row.endpoints.len() != peer.addresses.len() || row.endpoints.is_empty() {
        return Err(("addresses", "one or more of the form <host>:<port> are expected".to_owned()));
    }
    Ok(row)
}

fn port_row(
    listener: &ListenerConfig,
    links: &BTreeMap<String, Result<LinkRow, String>>,
) -> Result<((String, String), PortRow), Misplaced> {
    if !links.contains_key(&listener.peer) {
        return Err(("peer", format!("there is no peer named {:?}", listener.peer)));
    }
    let target: Target = listener.target.parse().map_err(|e| ("target", format!("{e}")))?;
    let route = SliceRoute { link: listener.peer.clone(), ports: BTreeMap::from([(listener.port, target)]) };
    let row = PortRow { created: String::new(), route, ready_pods: BTreeSet::new(), http: BTreeSet::new() };
    Ok(((String::new(), listener.port.to_string()), row))
}

fn add_service(service: &ServiceConfig, loaded: &mut Loaded) -> Result<(), String> {
    let (name, namespace) = service
        .name
        .split_once('.')
        .filter(|(name, namespace)| is_dns_label(name) && is_dns_label(namespace))
        .ok_or_else(|| format!("{:?} is not of the form <service>.<namespace>", service.name))?;
    let ports = service.ports.iter().map(|p| ServicePort { name: p.port.to_string(), port: p.port });
    let row = ServiceRow { ports: ports.collect(), ..ServiceRow::default() };
    if loaded.services.insert((namespace.to_owned(), name.to_owned()), row).is_some() {
        return Err("this Service is there twice".to_owned());
    }
    for port in &service.ports {
        for address in &port.endpoints {
            // Each endpoint is a slice of its own: ports may differ.
            let endpoint =
                Endpoint { ip: address.ip(), hostname: None, ready: true, serving_while_terminating: false };
            let slice = SliceRow {
                service: name.to_owned(),
                ports: vec![(port.port.to_string(), address.port())],
                endpoints: vec![endpoint],
            };
            let key = (namespace.to_owned(), format!("{name}-{}-{address}", port.port));
            loaded.slices.push((key, slice));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{certs::Authority, files::Files};

    /// A gateway `east` that calls `west` and exports a Service.
    fn write_example(files: &Files) -> PathBuf {
        let (west, east) = (Authority::new("west"), Authority::new("east"));
        let (server, client) = (east.gateway("linkspan"), west.client("linkspan", "east", "u"));
        files.write("server.crt", &server.cert_pem);
        files.write("server.key", &server.key_pem);
        files.write("own-ca.crt", &east.pem());
        files.write("client-west.crt", &client.cert_pem);
        files.write("client.key", &client.key_pem);
        files.write("west-ca.crt", &west.pem());
        files.write(
            "gateway.yaml",
            r#"
server:
  certificate: server.crt
  key: server.key
  bundle: own-ca.crt
accounts:
  - name: east
    uid: 0b7e7f3a
peers:
  - name: west
    addresses: ["192.0.2.1:4143", "gateway.example:4143"]
    identity: spiffe://west.linkspan/ns/linkspan/sa/linkspan-gateway
    certificate: client-west.crt
    key: client.key
    bundle: west-ca.crt
listeners:
  - port: 10007
    peer: west
    target: my-api.default:8080
services:
  - name: my-api.default
    ports:
      - port: 8080
        endpoints: ["127.0.0.1:8080"]
"#,
        )
    }

    #[test]
    fn a_whole_file_fills_the_tables() {
        let files = Files::new("whole");
        let tables = Tables::empty();
        load(&write_example(&files)).map_err(|e| e.to_string()).unwrap().publish(&tables);
        let target: Target = "my-api.default:8080".parse().unwrap();
        assert!(tables.services.read(|t| t.is_exported(&target)));
        assert_eq!(tables.ports.read(|t| t.routes().0[&10_007].target.clone()), target);
        assert_eq!(tables.links.read(|t| t.rows()["west"].clone().unwrap().endpoints.len()), 2);
        assert!(tables.credentials.borrow().server.is_some());
        assert_eq!(tables.accounts.read(|t| t.uid("east").map(str::to_owned)), Some("0b7e7f3a".to_owned()));
    }

    #[test]
    fn a_bad_file_is_refused_by_place_and_reason() {
        let files = Files::new("bad");
        let path = write_example(&files);
        let good = fs::read_to_string(&path).unwrap();
        let refused = |from: &str, to: &str| {
            assert!(good.contains(from));
            fs::write(&path, good.replace(from, to)).unwrap();
            load(&path).err().unwrap().to_string()
        };
        let unknown = refused("port: 10007", "prot: 10007");
        assert!(unknown.contains("prot") && unknown.contains("line"), "{unknown}");
        let peer = refused("peer: west", "peer: north");
        assert!(peer.contains("listeners[0].peer: there is no peer named \"north\""), "{peer}");
        let target = refused("target: my-api.default:8080", "target: my-api");
        assert!(target.contains("listeners[0].target"), "{target}");
        let missing = refused("server.key", "none.key");
        assert!(missing.contains("none.key cannot be read"), "{missing}");
    }
}
