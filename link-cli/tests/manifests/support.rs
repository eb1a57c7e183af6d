//! What the tests of this folder share: comparing with golden files, and renewing them by `BLESS=1`.

use link_cli::manifests::link::{ApiAccess, LinkInput};
use std::path::{Path, PathBuf};

/// The workspace's folder.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A link as it is printed in golden files, and as the chart for links makes it.
pub(crate) fn link_input() -> LinkInput {
    LinkInput {
        name: "cluster-west".into(),
        namespace: "linkspan".into(),
        domain: "cluster.local".into(),
        api: ApiAccess {
            server: "https://172.18.0.2:6443".into(),
            ca_data: Some("Y2E=".into()),
            tls_server_name: None,
            token: "a-token".into(),
        },
        ca_bundle: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".into(),
        trust_domain: "0b6bd1a5.linkspan".parse().unwrap(),
        gateway_addresses: vec!["172.18.0.100".into(), "gw.example".into()],
        gateway_port: 4143,
        selector: None,
        excluded_annotations: vec!["team.example/*".into()],
        excluded_labels: vec![],
    }
}

/// Compares `text` with the file, or writes it with `BLESS=1`.
pub(crate) fn same_as_file(path: &Path, text: &str) {
    if std::env::var_os("BLESS").is_some_and(|v| v == "1") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    let first = golden.lines().zip(text.lines()).position(|(a, b)| a != b);
    let line = first.unwrap_or_else(|| golden.lines().count().min(text.lines().count()));
    assert!(
        golden == text,
        "{} differs from line {}:\n  file: {:?}\n  now:  {:?}\nrenew it with BLESS=1",
        path.display(),
        line + 1,
        golden.lines().nth(line),
        text.lines().nth(line)
    );
}
