//! Links, credentials and rights that cannot be used: each has its condition with advice, none stops anything else.

use crate::pair::{Pair, SOON, api, linked, merge};
use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::Api;
use linkspan_core::api::{credentials, labels, link::Link, names};
use linkspan_tests::{ApiServer, Need, eventually, have};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

async fn condition(pair: &Pair, link: &str, kind: &str, reason: &str) -> String {
    eventually(SOON, format!("{kind} of {link} for reason {reason}"), async || {
        let status =
            api::<Link>(&pair.in_east, labels::NAMESPACE).get(link).await?.status.unwrap_or_default();
        let found = status.conditions.iter().find(|c| c.kind == kind && c.reason == reason);
        Ok(found.with_context(|| format!("conditions are {:?}", status.conditions))?.message.clone())
    })
    .await
}

/// Proves: each field of a Link that cannot be used is named by a condition; a kubeconfig that cannot be read, another
/// cluster's CA, a token that ended, missing verbs here and there: a condition with advice each, retries that are few,
/// no panic, and a sound Link goes on.
#[tokio::test]
async fn what_cannot_be_used_is_named_with_advice() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager")]) {
        return;
    }
    let mut pair = linked().await.unwrap();
    pair.export("first").await.unwrap();
    pair.mirrored("first").await;
    malformed_links(&pair).await.unwrap();
    credentials_that_cannot_be_used(&pair).await.unwrap();
    rights_that_are_missing(&pair).await.unwrap();
    pair.export("last").await.unwrap();
    pair.mirrored("last").await;
    for side in [&mut pair.east, &mut pair.west] {
        let controller = side.controller().unwrap();
        controller.running().unwrap();
        assert!(!controller.log().contains("panicked"), "{}", controller.log());
    }
}

async fn malformed_links(pair: &Pair) -> Result<()> {
    let good = api::<Link>(&pair.in_east, labels::NAMESPACE).get("west").await?;
    let good = serde_json::to_value(good)?;
    let fields: [(&str, Value, &str); 9] = [
        ("gatewayPort", json!("70000"), "GatewayAlive"),
        ("gatewayIdentity", json!("west"), "GatewayAlive"),
        ("probeSpec", json!({"period": "soon"}), "GatewayAlive"),
        ("probeSpec", json!({"timeout": "-1s"}), "GatewayAlive"),
        ("probeSpec", json!({"failureThreshold": "none"}), "GatewayAlive"),
        ("targetClusterName", json!("west.example"), "Synced"),
        ("targetClusterDomain", json!("cluster local"), "Synced"),
        ("targetClusterLinkerdNamespace", json!("a/b"), "Synced"),
        ("selector", json!({"matchExpressions": [{"key": "a", "operator": "Near"}]}), "Synced"),
    ];
    let mut links = Vec::new();
    for (n, (field, value, _)) in fields.iter().enumerate() {
        let mut link = json!({"apiVersion": good["apiVersion"], "kind": "Link", "spec": good["spec"],
            "metadata": {"namespace": labels::NAMESPACE, "name": format!("bad-{n}")}});
        link["spec"]["targetClusterName"] = json!(format!("bad-{n}"));
        link["spec"]["clusterCredentialsSecret"] = json!(names::credentials_secret("west"));
        link["spec"]["selector"] = json!({"matchLabels": {"none": "such"}});
        link["spec"][*field] = value.clone();
        links.push(link);
    }
    pair.apply(&pair.east, &links).await?;
    for (n, (field, _, kind)) in fields.iter().enumerate() {
        let told = condition(pair, &format!("bad-{n}"), kind, "InvalidLink").await;
        assert!(told.starts_with(&format!("spec.{field}")), "{field}: {told}");
    }
    let missing = json!({"apiVersion": good["apiVersion"], "kind": "Link", "spec": {},
        "metadata": {"namespace": labels::NAMESPACE, "name": "empty"}});
    pair.apply(&pair.east, &[missing]).await?;
    condition(pair, "empty", "GatewayAlive", "InvalidLink").await;
    condition(pair, "empty", "CredentialsValid", "LinkInvalid").await;
    let all = ["-n", labels::NAMESPACE, "delete", "link", "empty"].map(str::to_owned).into_iter();
    let all: Vec<String> = all.chain((0..fields.len()).map(|n| format!("bad-{n}"))).collect();
    let delete = pair.east.server.kubectl(all.iter().map(String::as_str))?;
    delete.run(SOON).await?.success()?;
    Ok(())
}

async fn credentials_that_cannot_be_used(pair: &Pair) -> Result<()> {
    let secrets: Api<Secret> = api(&pair.in_east, labels::NAMESPACE);
    let secret = names::credentials_secret("west");
    let good = secrets.get(&secret).await?.data.context("a Secret without data")?;
    let good = String::from_utf8(good[credentials::KUBECONFIG].0.clone())?;
    let put = async |kubeconfig: &str| {
        let data = BTreeMap::from([(credentials::KUBECONFIG, ByteString(kubeconfig.as_bytes().to_vec()))]);
        merge(&secrets, &secret, &json!({"data": data})).await;
    };
    let told = {
        put("clusters: [").await;
        condition(pair, "west", "CredentialsValid", "KubeconfigInvalid").await
    };
    assert!(told.contains("link-cli"), "the command that mends it: {told}");

    let ended =
        json!({"sub": "system:serviceaccount:linkspan:a", "iat": 1_600_000_000, "exp": 1_600_086_400});
    let token = format!("h.{}.s", URL_SAFE_NO_PAD.encode(ended.to_string()));
    put(&pair.west.server.kubeconfig(&token)?).await;
    let told = condition(pair, "west", "CredentialsValid", "TokenExpired").await;
    assert!(told.contains("2020") && told.contains("link-cli"), "{told}");

    // The CA of another cluster.
    let ca = |text: &str| {
        let line = text.lines().find(|l| l.contains("certificate-authority-data")).unwrap_or_default();
        line.split(':').nth(1).unwrap_or_default().trim().to_owned()
    };
    let other = ApiServer::kubeconfig(&pair.east.server, "x")?;
    let wrong = good.replace(&ca(&good), &ca(&other));
    assert!(wrong != good);
    put(&wrong).await;
    let told = eventually(SOON, "the wrong CA to be told", async || {
        let status = pair.link().await?;
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        let bad = all.into_iter().find(|c| c["type"] == "CredentialsValid" && c["status"] != "True");
        let told = bad.with_context(|| format!("{status}"))?.to_string();
        ensure!(told.to_lowercase().contains("certificate"), "{told}");
        Ok(told)
    })
    .await;
    let token = good.lines().find_map(|l| l.split("token: ").nth(1)).context("a kubeconfig without token")?;
    assert!(!told.contains(token), "a token is told");
    pair.mirror("first").await.expect("mirrors stand meanwhile");
    put(&good).await;
    pair.condition("CredentialsValid", "True").await;
    pair.condition("Synced", "True").await;
    Ok(())
}

async fn rights_that_are_missing(pair: &Pair) -> Result<()> {
    let rules = async |kind: &str, namespace: &[&str], server: &ApiServer| -> Result<Value> {
        let get =
            ["get", kind, labels::CONTROLLER, "-o", "json"].into_iter().chain(namespace.iter().copied());
        Ok(serde_json::from_str(&server.kubectl(get)?.run(SOON).await?.success()?)?)
    };
    let server = &pair.east.server;
    let role = rules("clusterrole", &[], server).await?;
    let without = |resource: &str, verbs: &[&str]| {
        let mut role = role.clone();
        role["metadata"] = json!({"name": labels::CONTROLLER});
        for rule in role["rules"].as_array_mut().into_iter().flatten() {
            if rule["resources"].as_array().is_some_and(|all| all.contains(&json!(resource))) {
                let kept = rule["verbs"].as_array().cloned().unwrap_or_default();
                rule["verbs"] = kept.into_iter().filter(|v| !verbs.iter().any(|gone| v == gone)).collect();
            }
        }
        role
    };

    // No right to make Services: told with advice, and tried again with growing waits only.
    server.apply(&without("services", &["create"]).to_string()).await?;
    pair.export("refused").await?;
    let told = pair.told("west", "refused", "Forbidden").await;
    assert!(told.contains("link-cli install"), "{told}");
    server.faults().forget_requests();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let tries = server.faults().requests();
    let tries = tries.iter().filter(|r| r.method == "POST" && r.path.contains("/services")).count();
    assert!(tries <= 8, "{tries} tries in five seconds");
    server.apply(&without("", &[]).to_string()).await?;
    pair.mirrored("refused").await;

    // No right to watch what is exported there.
    let account = labels::REMOTE_ACCESS_ACCOUNT;
    let get = ["-n", labels::NAMESPACE, "get", "role", account, "-o", "json"];
    let text = pair.west.server.kubectl(get)?.run(SOON).await?.success()?;
    let mut role: Value = serde_json::from_str(&text)?;
    role["metadata"] = json!({"name": account, "namespace": labels::NAMESPACE});
    let mut poor = role.clone();
    poor["rules"]
        .as_array_mut()
        .context("a Role without rules")?
        .retain(|rule| rule["resources"] != json!(["exportedservices"]));
    pair.west.server.apply(&poor.to_string()).await?;
    pair.west.server.faults().bytes().cut();
    let told = condition(pair, "west", "Connected", "Forbidden").await;
    assert!(told.contains("exportedservices"), "{told}");
    pair.west.server.apply(&role.to_string()).await?;
    pair.condition("Connected", "True").await;
    Ok(())
}
