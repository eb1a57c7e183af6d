//! What the tests of this folder share: a pair of clusters, a Link's conditions, and objects by name.

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client};
use linkspan_core::api::{
    credentials::{GATEWAY_TLS_SECRET, KUBECONFIG, REMOTE_KUBECONFIG_TYPE},
    labels::NAMESPACE,
    link::Link,
    names::credentials_secret,
};
use linkspan_tests::{Installation, eventually};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

/// Several times what anything here takes.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Where gateways are said to be in tests without any.
pub(crate) const NOWHERE: Ipv4Addr = Ipv4Addr::new(10, 213, 255, 1);

/// One cluster that clients reach on loopback, without controller and gateway.
pub(crate) async fn cluster(name: &str) -> Installation {
    Installation::new(name, Ipv4Addr::LOCALHOST.into(), NOWHERE).await.unwrap()
}

/// The objects of a YAML text.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let documents = serde_norway::Deserializer::from_str(text);
    documents.map(|d| Value::deserialize(d).unwrap()).filter(|object| !object.is_null()).collect()
}

/// What `link-cli link` prints in `west` with these flags more.
pub(crate) async fn link_output(west: &Installation, flags: &[&str]) -> String {
    let url = west.server.url();
    let link = ["link", "--cluster-name", "west", "--api-server-address", &url];
    west.link_cli(link.iter().chain(flags).copied()).await.unwrap()
}

/// The token in what `link` printed.
pub(crate) fn token_of(link: &str) -> String {
    let objects = documents(link);
    let secret = objects.iter().find(|o| o["type"] == REMOTE_KUBECONFIG_TYPE).expect("no credentials");
    let kubeconfig = STANDARD.decode(secret["data"][KUBECONFIG].as_str().unwrap()).unwrap();
    token_in(std::str::from_utf8(&kubeconfig).unwrap())
}

/// The token in a kubeconfig.
pub(crate) fn token_in(kubeconfig: &str) -> String {
    let config: Value = serde_norway::from_str(kubeconfig).unwrap();
    config["users"][0]["user"]["token"].as_str().unwrap().to_owned()
}

/// What `link` printed, with another token in it (JSON).
pub(crate) fn with_token(link: &str, token: &str) -> String {
    let old = token_of(link);
    let mut objects = documents(link);
    let secret = objects.iter_mut().find(|o| o["type"] == REMOTE_KUBECONFIG_TYPE).unwrap();
    let kubeconfig = STANDARD.decode(secret["data"][KUBECONFIG].as_str().unwrap()).unwrap();
    let kubeconfig = String::from_utf8(kubeconfig).unwrap().replace(&old, token);
    secret["data"][KUBECONFIG] = STANDARD.encode(kubeconfig).into();
    list(&objects)
}

/// Objects as one text for [`linkspan_tests::ApiServer::apply`].
pub(crate) fn list(items: &[Value]) -> String {
    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// Waits for a condition of Link `west` with this status and reason; gives its message.
pub(crate) async fn condition(client: &Client, kind: &str, status: &str, reason: &str) -> String {
    eventually(SOON, format!("condition {kind}={status}, reason {reason}"), async || {
        let link = Api::<Link>::namespaced(client.clone(), NAMESPACE).get("west").await?;
        let all = link.status.context("no status")?.conditions;
        let found = all.iter().find(|c| c.kind == kind).with_context(|| format!("{all:?}"))?;
        ensure!((found.status.as_str(), found.reason.as_str()) == (status, reason), "{found:?}");
        Ok(found.message.clone())
    })
    .await
}

/// The texts in a Secret.
pub(crate) async fn secret(client: &Client, name: &str) -> Result<BTreeMap<String, String>> {
    let data = Api::<Secret>::namespaced(client.clone(), NAMESPACE).get(name).await?.data;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).context("not text");
    data.unwrap_or_default().into_iter().map(|(key, bytes)| Ok((key, text(bytes.0)?))).collect()
}

/// The texts in a ConfigMap.
pub(crate) async fn config_map(client: &Client, name: &str) -> Result<BTreeMap<String, String>> {
    Ok(Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE).get(name).await?.data.unwrap_or_default())
}

/// Every secret text there is for two linked clusters: tokens and private keys.
pub(crate) async fn secret_texts(east: &Client, west: &Client) -> Vec<String> {
    let mut all = Vec::new();
    for client in [east, west] {
        let held = secret(client, GATEWAY_TLS_SECRET).await.unwrap();
        all.extend(held.into_iter().filter(|(key, _)| key.ends_with(".key")).map(|(_, text)| text));
        all.push(secret(client, "linkspan-ca").await.unwrap().remove("tls.key").unwrap());
    }
    for name in [credentials_secret("west"), linkspan_core::api::names::live_credentials_secret("west")] {
        if let Ok(mut found) = secret(east, &name).await {
            all.push(token_in(&found.remove(KUBECONFIG).unwrap()));
        }
    }
    all
}
