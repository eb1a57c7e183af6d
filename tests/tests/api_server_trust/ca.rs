//! The CA of a cluster: made, brought by others, exchanged.

use crate::support::{SOON, cluster, config_map, list, secret};
use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use kube::Client;
use linkspan_core::api::{
    credentials::{
        CA_BUNDLE, CA_BUNDLE_CONFIG_MAP, CA_SECRET, GATEWAY_TLS_SECRET, GATEWAY_TRUST_CONFIG_MAP, OWN_BUNDLE,
        SERVER_CERT,
    },
    labels::NAMESPACE,
};
use linkspan_tests::{Need, eventually, have, scratch::Scratch};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384,
};
use serde_json::json;
use x509_parser::{pem::parse_x509_pem, prelude::X509Certificate};

/// A CA as an organisation has it: a root, and below it the CA of one cluster.
struct Brought {
    root: String,
    certificate: String,
    key: String,
}

impl Brought {
    fn new(name: &str, key: &KeyPair) -> Self {
        let params = |name: &str| {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let root =
            CertifiedIssuer::self_signed(params("the organisation"), KeyPair::generate().unwrap()).unwrap();
        let certificate = params(name).signed_by(key, &root).unwrap().pem();
        Self { root: root.pem(), certificate, key: key.serialize_pem() }
    }

    /// The Secret, as cert-manager writes it.
    fn secret(&self) -> String {
        let text = |text: &str| STANDARD.encode(text);
        let chain = format!("{}{}", self.certificate, self.root);
        list(&[json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"namespace": NAMESPACE, "name": CA_SECRET,
                         "annotations": {"cert-manager.io/certificate-name": "linkspan-ca"}},
            "data": {"ca.crt": text(&self.root), "tls.crt": text(&chain), "tls.key": text(&self.key)},
        })])
    }
}

/// Waits until linked clusters and the gateways are told exactly these CAs.
async fn told(client: &Client, cas: &[&str]) {
    let wanted = cas.concat();
    eventually(SOON, format!("{} CAs to be trusted", cas.len()), async || {
        let published = config_map(client, CA_BUNDLE_CONFIG_MAP).await?;
        let own = config_map(client, GATEWAY_TRUST_CONFIG_MAP).await?;
        for (place, text) in [(CA_BUNDLE, published.get(CA_BUNDLE)), (OWN_BUNDLE, own.get(OWN_BUNDLE))] {
            let text = text.with_context(|| format!("no {place}"))?;
            ensure!(*text == wanted, "{place} has {} CAs: {text}", text.matches("BEGIN").count());
        }
        Ok(())
    })
    .await;
}

/// The server certificate, and whether `ca` signed it.
async fn server_certificate(client: &Client, ca: &str) -> (String, bool) {
    let pem = eventually(SOON, "a server certificate", async || {
        let mut held = secret(client, GATEWAY_TLS_SECRET).await?;
        held.remove(SERVER_CERT).context("none yet")
    })
    .await;
    let signed = {
        let (_, certificate) = parse_x509_pem(pem.as_bytes()).unwrap();
        let (_, ca) = parse_x509_pem(ca.as_bytes()).unwrap();
        let (certificate, ca): (X509Certificate<'_>, X509Certificate<'_>) =
            (certificate.parse_x509().unwrap(), ca.parse_x509().unwrap());
        certificate.verify_signature(Some(ca.public_key())).is_ok()
    };
    (pem, signed)
}

#[tokio::test]
async fn a_ca_is_brought_renewed_and_exchanged_without_breaking_what_it_signed() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager")]) {
        return;
    }
    let mut west = cluster("west").await;
    let client = west.server.admin().await.unwrap();
    let first = Brought::new("first", &KeyPair::generate().unwrap());
    let second = Brought::new("second", &KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap());
    let third = Brought::new("third", &KeyPair::generate().unwrap());

    // cert-manager was first: its CA signs, and what is above it is trusted by nobody.
    west.server.apply(&first.secret()).await.unwrap();
    west.start_controller().await.unwrap();
    told(&client, &[&first.certificate]).await;
    let (served, by_first) = server_certificate(&client, &first.certificate).await;
    assert!(by_first, "{served}");

    // cert-manager renews: the new CA is told, the former one is still trusted, and no connection needs to break.
    west.server.apply(&second.secret()).await.unwrap();
    told(&client, &[&second.certificate, &first.certificate]).await;
    assert_eq!(server_certificate(&client, &first.certificate).await, (served.clone(), true));

    // What cannot sign is told and changes nothing.
    let broken = Brought { key: first.key.clone(), ..Brought::new("broken", &KeyPair::generate().unwrap()) };
    west.server.apply(&broken.secret()).await.unwrap();
    eventually(SOON, "the broken CA to be told", async || {
        let log = west.controller()?.log();
        ensure!(log.contains("its certificate is not for its private key"), "nothing in the log");
        ensure!(log.contains("until then the one before signs"), "the log does not say what signs");
        Ok(())
    })
    .await;
    told(&client, &[&second.certificate, &first.certificate]).await;

    // A new controller knows the former CA from the gateways' Secret, and takes another from files.
    let folder = Scratch::new("ca").unwrap();
    folder.write("tls.crt", &third.certificate).unwrap();
    folder.write("tls.key", &third.key).unwrap();
    west.controller().unwrap().stop(linkspan_tests::process::STOP).unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    west.start_controller_with(&["--ca-dir", &path]).await.unwrap();
    told(&client, &[&third.certificate, &second.certificate, &first.certificate]).await;
    assert_eq!(server_certificate(&client, &first.certificate).await, (served.clone(), true));

    // Who must distrust a former CA at once drops the history: what it signed is made anew.
    let forget = ["-n", NAMESPACE, "patch", "secret", GATEWAY_TLS_SECRET, "--type=merge", "-p"];
    let forget = west.server.kubectl(forget).unwrap().arg(r#"{"data":{"ca-history.json":null}}"#);
    forget.run(SOON).await.unwrap().success().unwrap();
    told(&client, &[&third.certificate]).await;
    eventually(SOON, "a server certificate of the third CA", async || {
        let (now, by_third) = server_certificate(&client, &third.certificate).await;
        ensure!(by_third && now != served, "it is still the former one");
        Ok(())
    })
    .await;
}
