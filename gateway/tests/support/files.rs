//! A folder with a configuration file and everything it names.

use super::certs::Authority;
use std::{fs, path::PathBuf};

/// A folder that goes when the test ends.
pub struct Files(PathBuf);

impl Files {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("linkspan-gateway-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A gateway `east` that calls `west` and exports a Service.
    pub fn write_example(&self) -> PathBuf {
        let (west, east) = (Authority::new("west"), Authority::new("east"));
        let (server, client) = (east.gateway("linkspan"), west.client("linkspan", "east", "u"));
        self.write("server.crt", &server.cert_pem);
        self.write("server.key", &server.key_pem);
        self.write("own-ca.crt", &east.pem());
        self.write("client-west.crt", &client.cert_pem);
        self.write("client.key", &client.key_pem);
        self.write("west-ca.crt", &west.pem());
        self.write(
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
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
