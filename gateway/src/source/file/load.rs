//! Reads the file and the files that it names, checks everything, and makes rows of it.

use crate::{
    egress::port_table::SliceRow as PortRow,
    ingress::service_table::{Endpoint, ServicePort, ServiceRow, SliceRow},
    mtls::credentials::{Credentials, Texts},
    source::{
        Tables,
        file::{
            error::{FileError, Misplaced},
            form::{FileConfig, ListenerConfig, PeerConfig, ServiceConfig, SplitConfig},
            locate::Step::{self, Index, Key},
        },
    },
    tunnel::link_table::LinkRow,
};
use linkspan_core::api::{
    credentials::{DENIED_SERIALS, OWN_BUNDLE, SERVER_CERT, SERVER_KEY, client_cert, peer_bundle},
    link::{LinkSettings, ProbeSettings},
    names::{Target, is_dns_label},
    slice::SliceRoute,
    split::{Place, Remote, SplitBackend, SplitPort, SplitRoute},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Everything that goes into the tables, read and checked.
pub struct Loaded {
    credentials: Credentials,
    accounts: BTreeMap<String, String>,
    links: BTreeMap<String, Result<LinkRow, String>>,
    ports: BTreeMap<(String, String), PortRow>,
    /// Their numbers.
    taken: BTreeSet<u16>,
    services: BTreeMap<(String, String), ServiceRow>,
    slices: Vec<((String, String), SliceRow)>,
    /// The files that were read, apart from the configuration itself.
    pub named: Vec<PathBuf>,
}

/// Reads `path` and the files it names.
///
/// # Errors
/// The first thing that cannot be used.
pub fn load(path: &Path) -> Result<Loaded, FileError> {
    let text = fs::read(path).map_err(|cause| FileError::Read { path: path.to_owned(), cause })?;
    let (config, rows) = check(path, &text)?;
    let base = path.parent().unwrap_or(Path::new("."));
    complete(&config, rows, base).map_err(|misplaced| misplaced.in_file(path.to_owned(), &text))
}

/// Checks `text`, the content of the file at `path`; the files that it names are not read, so that credentials are
/// left out.
///
/// # Errors
/// The first thing that cannot be used.
pub fn check(path: &Path, text: &[u8]) -> Result<(FileConfig, Loaded), FileError> {
    let form = |cause| FileError::Form { path: path.to_owned(), cause };
    let config: FileConfig = serde_norway::from_slice(text).map_err(form)?;
    let rows = rows(&config).map_err(|misplaced| misplaced.in_file(path.to_owned(), text))?;
    Ok((config, rows))
}

impl Loaded {
    /// Puts everything into the tables; what is as before stays untouched.
    pub fn publish(self, tables: &Tables) {
        tables.credentials.send_replace(Arc::new(self.credentials));
        tables.accounts.update(|table| table.reset(self.accounts));
        tables.update_exports(|table| {
            table.reset_slices(self.slices);
            table.reset_services(self.services)
        });
        tables.links.update(|table| table.reset(self.links));
        tables.ports.update(|table| table.reset(self.ports));
    }
}

impl Loaded {
    /// A port leads somewhere; each one once.
    fn add_port(&mut self, namespace: &str, port: u16, row: PortRow) -> Result<(), Wrong> {
        if port == 0 {
            return Err(("port", "a port from 1 to 65535 is expected".to_owned()));
        }
        if !self.taken.insert(port) {
            return Err(("port", "this port is there twice".to_owned()));
        }
        self.ports.insert((namespace.to_owned(), port.to_string()), row);
        Ok(())
    }
}

/// Adds what the named files hold.
fn complete(config: &FileConfig, rows: Loaded, base: &Path) -> Result<Loaded, Misplaced> {
    let (credentials, named) = read_credentials(config, base)?;
    for (i, peer) in config.peers.iter().enumerate() {
        let (client, link) = (credentials.clients.get(&peer.name), rows.links.get(&peer.name));
        if let (Some(client), Some(Ok(link))) = (client, link) {
            let place = [Key("peers"), Index(i), Key("certificate")];
            client.config(&link.identity).map_err(|e| Misplaced::new(&place, e.to_string()))?;
        }
    }
    Ok(Loaded { credentials, named, ..rows })
}

/// Checks what the file says, and makes rows of it.
fn rows(config: &FileConfig) -> Result<Loaded, Misplaced> {
    let mut rows = Loaded {
        credentials: Credentials::default(),
        accounts: BTreeMap::new(),
        links: BTreeMap::new(),
        ports: BTreeMap::new(),
        taken: BTreeSet::new(),
        services: BTreeMap::new(),
        slices: Vec::new(),
        named: Vec::new(),
    };
    for (i, account) in config.accounts.iter().enumerate() {
        let at = |field, cause: &str| Misplaced::new(&[Key("accounts"), Index(i), Key(field)], cause);
        if account.name.is_empty() || account.uid.is_empty() {
            return Err(at("name", "an account has a name and a uid, neither of them empty"));
        }
        if rows.accounts.insert(account.name.clone(), account.uid.clone()).is_some() {
            return Err(at("name", "this account is there twice"));
        }
    }
    for (i, peer) in config.peers.iter().enumerate() {
        let at = |(field, cause): Wrong| Misplaced::new(&[Key("peers"), Index(i), Key(field)], cause);
        let row = link_row(peer).map_err(at)?;
        if rows.links.insert(peer.name.clone(), Ok(row)).is_some() {
            return Err(at(("name", "this peer is there twice".to_owned())));
        }
    }
    for (i, listener) in config.listeners.iter().enumerate() {
        let at = |(field, cause): Wrong| Misplaced::new(&[Key("listeners"), Index(i), Key(field)], cause);
        let row = port_row(listener, &rows.links).map_err(at)?;
        rows.add_port("", listener.port, row).map_err(at)?;
    }
    for (i, split) in config.splits.iter().enumerate() {
        let at = |steps: &[Step], cause: String| {
            Misplaced::new(&[&[Key("splits"), Index(i)], steps].concat(), cause)
        };
        let (name, namespace) = service_name(&split.name).map_err(|cause| at(&[Key("name")], cause))?;
        let row =
            split_row(split, name, namespace, &rows.links).map_err(|(steps, cause)| at(&steps, cause))?;
        rows.add_port(namespace, split.port, row).map_err(|(field, cause)| at(&[Key(field)], cause))?;
    }
    for (i, service) in config.services.iter().enumerate() {
        add_service(service, i, &mut rows)?;
    }
    Ok(rows)
}

/// A field that cannot be used, and why.
type Wrong = (&'static str, String);

fn link_row(peer: &PeerConfig) -> Result<LinkRow, Wrong> {
    if !is_dns_label(&peer.name) {
        return Err((
            "name",
            format!("{:?} is no DNS label: use lower-case letters, digits and '-'", peer.name),
        ));
    }
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

type Links = BTreeMap<String, Result<LinkRow, String>>;

fn port_row(listener: &ListenerConfig, links: &Links) -> Result<PortRow, Wrong> {
    let Remote { link, target } = remote(&listener.peer, &listener.target, links)?;
    let route = SliceRoute { link, ports: BTreeMap::from([(listener.port, target)]) };
    Ok(PortRow { route, ..PortRow::default() })
}

/// A Service of a peer.
fn remote(peer: &str, target: &str, links: &Links) -> Result<Remote, Wrong> {
    if !links.contains_key(peer) {
        return Err(("peer", format!("there is no peer named {peer:?}")));
    }
    let target: Target = target.parse().map_err(|e| ("target", format!("{e}")))?;
    Ok(Remote { link: peer.to_owned(), target })
}

fn split_row(
    split: &SplitConfig,
    name: &str,
    namespace: &str,
    links: &Links,
) -> Result<PortRow, (Vec<Step>, String)> {
    let mut backends = Vec::new();
    for (i, backend) in split.backends.iter().enumerate() {
        let at = |(field, cause): Wrong| (vec![Key("backends"), Index(i), Key(field)], cause);
        if !is_dns_label(&backend.name) {
            return Err(at(("name", format!("{:?} is no DNS label", backend.name))));
        }
        backends.push(SplitBackend {
            service: backend.name.clone(),
            weight: u64::from(backend.weight),
            place: Place::Link(remote(&backend.peer, &backend.target, links).map_err(at)?),
        });
    }
    if backends.iter().all(|backend| backend.weight == 0) {
        return Err((vec![Key("backends")], "one backend at least must have a weight above 0".to_owned()));
    }
    let port = SplitPort {
        port: split.port,
        name: String::new(),
        protocol: split.protocol,
        backends,
        matches: Vec::new(),
    };
    let route = SplitRoute {
        split: name.to_owned(),
        apex: name.to_owned(),
        affinity: split.affinity,
        ports: BTreeMap::from([(split.port, port)]),
    };
    Ok(PortRow { route: route.slice_route(namespace), split: Some(Arc::new(route)), ..PortRow::default() })
}

/// The two parts of `<service>.<namespace>`.
fn service_name(text: &str) -> Result<(&str, &str), String> {
    text.split_once('.')
        .filter(|(name, namespace)| is_dns_label(name) && is_dns_label(namespace))
        .ok_or_else(|| format!("{text:?} is not of the form <service>.<namespace>"))
}

fn add_service(service: &ServiceConfig, i: usize, rows: &mut Loaded) -> Result<(), Misplaced> {
    let at = |steps: &[Step], cause: String| {
        Misplaced::new(&[&[Key("services"), Index(i)], steps].concat(), cause)
    };
    let (name, namespace) = service_name(&service.name).map_err(|cause| at(&[Key("name")], cause))?;
    let mut numbers = BTreeSet::new();
    for (j, port) in service.ports.iter().enumerate() {
        if port.port == 0 || !numbers.insert(port.port) {
            let cause = "a port from 1 to 65535 is expected, each one once".to_owned();
            return Err(at(&[Key("ports"), Index(j), Key("port")], cause));
        }
        for address in &port.endpoints {
            // Each endpoint is a slice of its own: ports may differ.
            let endpoint = Endpoint {
                ip: address.ip(),
                hostname: None,
                ready: true,
                serving_while_terminating: false,
                for_zones: Vec::new(),
            };
            let slice = SliceRow {
                service: name.to_owned(),
                ports: vec![(port.port.to_string(), address.port())],
                endpoints: vec![endpoint],
                ..SliceRow::default()
            };
            let key = (namespace.to_owned(), format!("{name}-{}-{address}", port.port));
            rows.slices.push((key, slice));
        }
    }
    let ports = service.ports.iter().map(|p| ServicePort { name: p.port.to_string(), port: p.port });
    let row = ServiceRow { ports: ports.collect(), ..ServiceRow::default() };
    if rows.services.insert((namespace.to_owned(), name.to_owned()), row).is_some() {
        return Err(at(&[Key("name")], "this Service is there twice".to_owned()));
    }
    Ok(())
}

/// Reads the named files. Each has a key, as it would have in the gateway's Secret or ConfigMap.
fn read_credentials(config: &FileConfig, base: &Path) -> Result<(Credentials, Vec<PathBuf>), Misplaced> {
    let (mut secret, mut trust) = (BTreeMap::new(), BTreeMap::new());
    let mut places: Vec<(String, PathBuf, Vec<Step>)> = Vec::new();
    let mut read = |key: &str, path: &Path, place: &[Step]| {
        let path = base.join(path);
        let bytes = fs::read(&path)
            .map_err(|e| Misplaced::new(place, format!("{} cannot be read: {e}", path.display())))?;
        places.push((key.to_owned(), path, place.to_vec()));
        Ok::<_, Misplaced>(bytes)
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let (server, at) = (&config.server, |field| [Key("server"), Key(field)]);
    let certificate = read(SERVER_CERT, &server.certificate, &at("certificate"))?;
    secret.insert(SERVER_CERT.to_owned(), certificate);
    secret.insert(SERVER_KEY.to_owned(), read(SERVER_KEY, &server.key, &at("key"))?);
    trust.insert(OWN_BUNDLE.to_owned(), text(read(OWN_BUNDLE, &server.bundle, &at("bundle"))?));
    trust.insert(DENIED_SERIALS.to_owned(), server.denied_serials.join("\n"));
    for (i, peer) in config.peers.iter().enumerate() {
        let at = |field| [Key("peers"), Index(i), Key(field)];
        let (cert, key) = (client_cert(&peer.name), format!("client-{}.key", peer.name));
        let bundle = peer_bundle(&peer.name);
        secret.insert(cert.clone(), read(&cert, &peer.certificate, &at("certificate"))?);
        secret.insert(key.clone(), read(&key, &peer.key, &at("key"))?);
        trust.insert(bundle.clone(), text(read(&bundle, &peer.bundle, &at("bundle"))?));
    }
    let credentials = Credentials::read(&Texts { secret: Some(secret), trust: Some(trust) });
    if let Some(problem) = credentials.problems.first() {
        let known = places.iter().find(|(key, ..)| problem.starts_with(&format!("{key} ")));
        return Err(match known {
            Some((key, path, place)) => {
                Misplaced::new(place, problem.replacen(key.as_str(), &path.display().to_string(), 1))
            }
            None => Misplaced::new(&[Key("server")], problem),
        });
    }
    Ok((credentials, places.into_iter().map(|(_, path, _)| path).collect()))
}
