//! Folders of gateway processes, and what is written there.
#![allow(dead_code, reason = "each test program uses a part of this")]

use crate::{
    process::own_host,
    support::{certs::Authority, files::Files},
};
use std::{fs, net::SocketAddr};

/// The folder of a gateway, and what is written there.
pub(crate) struct Site {
    pub(crate) files: Files,
    pub(crate) ca: Authority,
    pub(crate) host: String,
}

/// What is the same in every configuration.
pub(crate) const SERVER: &str = "server: { certificate: server.crt, key: server.key, bundle: own-ca.crt }\n";

impl Site {
    pub(crate) fn new(name: &str) -> Self {
        let site = Self { files: Files::new(name), ca: Authority::new(name), host: own_host() };
        site.write_server(&site.ca);
        site
    }

    /// Its own certificate, made by `ca`.
    pub(crate) fn write_server(&self, ca: &Authority) {
        let server = ca.gateway("linkspan");
        self.files.write("server.crt", &server.cert_pem);
        self.files.write("server.key", &server.key_pem);
        self.files.write("own-ca.crt", &ca.pem());
    }

    /// What this site needs to call the gateway of `west`.
    pub(crate) fn write_client(&self, west: &Authority) {
        let client = west.client("linkspan", "east", "uid-1");
        self.files.write("client.crt", &client.cert_pem);
        self.files.write("client.key", &client.key_pem);
        self.files.write("west-ca.crt", &west.pem());
    }

    /// Renames a new configuration into place.
    pub(crate) fn replace(&self, config: &str) {
        let new = self.files.write("gateway.yaml.new", config);
        fs::rename(&new, new.with_extension("")).unwrap();
    }
}

/// Calls the gateway of `west` at that address; port 10007 leads to its Service.
pub(crate) fn calling(west: &str) -> String {
    format!(
        "{SERVER}peers:\n- name: west\n  addresses: [\"{west}:4143\"]\n  \
         identity: spiffe://west.linkspan/ns/linkspan/sa/linkspan-gateway\n  \
         certificate: client.crt\n  key: client.key\n  bundle: west-ca.crt\n\
         listeners: [{{ port: 10007, peer: west, target: \"api.default:8080\" }}]\n"
    )
}

/// Serves `backend` as that Service.
pub(crate) fn called(backend: SocketAddr) -> String {
    format!(
        "{SERVER}accounts: [{{ name: east, uid: uid-1 }}]\n\
         services: [{{ name: api.default, ports: [{{ port: 8080, endpoints: [\"{backend}\"] }}] }}]\n"
    )
}
