//! Mirroring between two real Kubernetes APIs, by the real controllers with the rights that `install` gives them.
//!
//! No gateway runs here: what is tested is which objects exist, whose they are, and that they stay right. Further
//! parts: kinds of Services ([`shapes`]), faults of the APIs and of the controller ([`faults`]), input that cannot be
//! used ([`bad_input`]).

#[path = "api_server_mirroring/bad_input.rs"]
mod bad_input;
#[path = "api_server_mirroring/faults.rs"]
mod faults;
#[path = "api_server_mirroring/pair.rs"]
mod pair;
#[path = "api_server_mirroring/shapes.rs"]
mod shapes;
#[path = "api_server_mirroring/withheld.rs"]
mod withheld;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Secret, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams},
};
use linkspan_core::api::{credentials, exported_service::ExportedService, labels, link::Link, names};
use linkspan_tests::{
    Need, eventually, have,
    scratch::Scratch,
    wait::{throughout, until},
};
use pair::{A_WHILE, SHOP, SOON, api, linked, merge};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn an_exported_service_is_mirrored_kept_and_removed() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager")]) {
        return;
    }
    let pair = linked().await.unwrap();
    pair.export("my-api").await.unwrap();

    // West says what it exports.
    let exports: Api<ExportedService> = api(&pair.in_west, labels::NAMESPACE);
    let export = eventually(SOON, "the ExportedService, ready", async || {
        let export = exports.get("shop.my-api").await?.spec;
        ensure!(export.ports.iter().all(|port| port.ready), "it says {export:?}");
        Ok(export)
    })
    .await;
    assert_eq!((export.namespace.as_str(), export.name.as_str()), (SHOP, "my-api"));
    let port = &export.ports[0];
    assert_eq!((port.name.as_str(), port.port, port.target_port), ("http", 8080, Some(80)));

    // East has it.
    let mirror = pair.mirrored("my-api").await;
    assert_eq!(mirror.labels()[labels::MIRRORED], "true");
    assert_eq!(mirror.labels()[labels::CLUSTER_NAME], "west");
    assert_eq!(mirror.labels()["team"], "blue");
    assert!(!mirror.labels().contains_key(labels::EXPORTED), "a mirror is not exported in turn");
    assert!(
        !mirror.labels().contains_key("helm.sh/chart"),
        "who tracks the original does not track the mirror"
    );
    assert_eq!(mirror.annotations()[labels::REMOTE_SVC_FQ_NAME], "my-api.shop.svc.cluster.local");
    assert_eq!(mirror.annotations()["team.example/page"], "blue");
    let ports = mirror.spec.clone().unwrap().ports.unwrap();
    assert_eq!((ports.len(), ports[0].port, ports[0].name.as_deref()), (1, 8080, Some("http")));
    let (first, route) = eventually(SOON, "the mirror's slice", async || pair.route("my-api").await).await;
    let (gateway_port, target) = route.ports.iter().next().unwrap();
    assert!((labels::EGRESS_PORTS.0..=labels::EGRESS_PORTS.1).contains(gateway_port));
    assert_eq!(target.to_string(), "my-api.shop:8080");
    assert_eq!(first.ports.as_ref().unwrap()[0].port, Some(i32::from(*gateway_port)));
    assert_eq!(first.owner_references()[0].uid, mirror.uid().unwrap(), "the slice goes with its Service");
    pair.condition("Connected", "True").await;
    pair.condition("Synced", "True").await;
    let counted = async || -> Result<()> {
        let services = pair.link().await?["services"].clone();
        ensure!(services == json!({"mirrored": 1, "failing": 0}), "{services}");
        Ok(())
    };
    eventually(SOON, "one mirror to be counted", counted).await;

    // What is edited or deleted by hand is put right, at the same port.
    let services: Api<Service> = api(&pair.in_east, SHOP);
    let slices: Api<EndpointSlice> = api(&pair.in_east, SHOP);
    let edit = json!({"metadata": {"labels": {"team": "red"}},
                      "spec": {"ports": [{"name": "http", "port": 9999}], "selector": {"app": "evil"}}});
    merge(&services, "my-api-west", &edit).await;
    eventually(SOON, "the edited mirror to be put right", async || {
        let now = pair.mirror("my-api").await?;
        let spec = now.spec.clone().unwrap_or_default();
        ensure!(spec.ports.as_ref() == Some(&ports), "ports are {:?}", spec.ports);
        ensure!(spec.selector.unwrap_or_default().is_empty(), "it has a selector");
        ensure!(now.labels()["team"] == "blue", "labels are {:?}", now.labels());
        Ok(())
    })
    .await;
    let same_route = async || -> Result<()> {
        let (now, found) = pair.route("my-api").await?;
        ensure!(found == route, "the route is {found:?}");
        let port = now.ports.as_ref().and_then(|p| p.first()).and_then(|p| p.port);
        ensure!(port == Some(i32::from(*gateway_port)), "the port is {port:?}");
        Ok(())
    };
    merge(
        &slices,
        &first.name_any(),
        &json!({"ports": [{"name": "http", "port": 1}], "metadata": {"annotations": null}}),
    )
    .await;
    eventually(SOON, "the edited slice to be put right", same_route).await;
    slices.delete(&first.name_any(), &DeleteParams::default()).await.unwrap();
    eventually(SOON, "the deleted slice to be back", same_route).await;
    services.delete("my-api-west", &DeleteParams::default()).await.unwrap();
    eventually(SOON, "the deleted mirror to be back", async || {
        let uid = pair.mirror("my-api").await?.uid();
        ensure!(uid != mirror.uid(), "it is still the old one");
        let (slice, _) = pair.route("my-api").await?;
        ensure!(Some(&slice.owner_references()[0].uid) == uid.as_ref(), "the slice is the old one's");
        same_route().await
    })
    .await;

    // Rest is rest: nothing is written while nothing changes.
    eventually(SOON, "one mirror to be counted again", counted).await;
    let quiet = async |for_: Duration| {
        pair.east.server.faults().forget_requests();
        throughout(for_, "no write while nothing changes", async || {
            let seen = pair.east.server.faults().requests();
            let mut writes = seen.iter().filter(|r| r.method != "GET" && !r.path.contains("/leases/"));
            let write = writes.next();
            ensure!(write.is_none(), "{write:?}");
            Ok(())
        })
        .await;
    };
    // The last repairs may still be on their way into the status.
    throughout(A_WHILE, "the mirror to stand", async || pair.mirror("my-api").await.map(|_| ())).await;
    quiet(A_WHILE * 2).await;

    // What is no longer exported goes.
    pair.stop_export("my-api").await;
    eventually(SOON, "the ExportedService to be gone", async || {
        ensure!(exports.get_opt("shop.my-api").await?.is_none(), "it is there");
        Ok(())
    })
    .await;
    pair.gone("my-api").await;

    // So does everything of a link that is deleted, and nothing else.
    pair.export("my-api").await.unwrap();
    pair.mirrored("my-api").await;
    let own = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": SHOP, "name": "own-west"},
                     "spec": {"ports": [{"port": 80}]}});
    pair.east.server.apply(&own.to_string()).await.unwrap();
    api::<Link>(&pair.in_east, labels::NAMESPACE).delete("west", &DeleteParams::default()).await.unwrap();
    pair.gone("my-api").await;
    services.get("own-west").await.expect("a user's own Service stays");
}

#[tokio::test]
async fn a_users_own_service_of_the_mirrors_name_is_left_alone() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager")]) {
        return;
    }
    let pair = linked().await.unwrap();
    let services: Api<Service> = api(&pair.in_east, SHOP);
    let own = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": SHOP, "name": "my-api-west"},
                     "spec": {"selector": {"app": "mine"}, "ports": [{"port": 80}]}});
    pair.east.server.apply(&own.to_string()).await.unwrap();
    let before = services.get("my-api-west").await.unwrap();
    pair.export("my-api").await.unwrap();
    pair.export("other").await.unwrap();
    pair.mirrored("other").await;
    let told = pair.told("west", "my-api", "Conflict").await;
    assert!(told.contains("my-api-west"), "the conflict is told by name: {told}");
    throughout(A_WHILE, "the user's Service stays as it is", async || {
        let now = services.get("my-api-west").await?;
        ensure!(now.resource_version() == before.resource_version(), "it was written: {now:?}");
        Ok(())
    })
    .await;
    // Not even when the Service that would be mirrored goes.
    pair.stop_export("my-api").await;
    eventually(SOON, "the conflict to be over", async || {
        let status = pair.link().await?;
        ensure!(status["services"]["failing"] == 0, "status is {status}");
        Ok(())
    })
    .await;
    let now = services.get("my-api-west").await.unwrap();
    assert_eq!(now.resource_version(), before.resource_version());
    pair.export("my-api").await.unwrap();
    eventually(SOON, "the conflict to be told again", async || {
        let status = pair.link().await?;
        ensure!(status["services"]["failing"] == 1, "status is {status}");
        Ok(())
    })
    .await;
    services.delete("my-api-west", &DeleteParams::default()).await.unwrap();
    pair.mirrored("my-api").await;
}

#[tokio::test]
async fn what_was_missed_while_the_other_cluster_was_away_is_made_up_for() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager")]) {
        return;
    }
    let mut pair = linked().await.unwrap();
    pair.export("stays").await.unwrap();
    pair.export("goes").await.unwrap();
    pair.mirrored("stays").await;
    pair.mirrored("goes").await;

    pair.west.server.faults().bytes().refuse().await.unwrap();
    let lost = pair.condition("Connected", "False").await;
    assert!(lost["message"].as_str().unwrap().len() > 10, "the cause is told: {lost}");
    pair.stop_export("goes").await;
    pair.export("comes").await.unwrap();
    throughout(A_WHILE, "mirrors stand while their cluster is away", async || {
        pair.mirror("goes").await?;
        pair.mirror("stays").await.map(|_| ())
    })
    .await;
    pair.west.server.faults().bytes().accept().await.unwrap();
    pair.condition("Connected", "True").await;
    pair.mirrored("comes").await;
    pair.gone("goes").await;
    pair.mirror("stays").await.unwrap();

    // The importer's own controller is killed, and everything changes while it is gone.
    let (_, before) = pair.route("stays").await.unwrap();
    pair.east.controller().unwrap().kill().unwrap();
    pair.stop_export("comes").await;
    pair.export("late").await.unwrap();
    let services: Api<Service> = api(&pair.in_east, SHOP);
    merge(&services, "stays-west", &json!({"spec": {"ports": [{"name": "http", "port": 9999}]}})).await;
    pair.east.start_controller().await.unwrap();
    pair.mirrored("late").await;
    pair.gone("comes").await;
    eventually(SOON, "the mirror that was edited meanwhile to be put right", async || {
        let spec = pair.mirror("stays").await?.spec.unwrap_or_default();
        ensure!(spec.ports.iter().flatten().all(|p| p.port == 8080), "{:?}", spec.ports);
        Ok(())
    })
    .await;
    let (_, after) = pair.route("stays").await.unwrap();
    assert_eq!(after, before, "its port outlives the controller");
}

#[tokio::test]
async fn the_importer_gets_its_certificate_and_may_do_little_else() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager"), Need::Tool("openssl")]) {
        return;
    }
    let pair = linked().await.unwrap();
    let secrets: Api<Secret> = api(&pair.in_east, labels::NAMESPACE);
    let maps = |client: &Client| api::<ConfigMap>(client, labels::NAMESPACE);

    // The certificate that west signed is in east, with the name of the account that asked.
    let certificate = eventually(SOON, "the client certificate", async || {
        let data = secrets.get(credentials::GATEWAY_TLS_SECRET).await?.data.unwrap_or_default();
        let keys: Vec<_> = data.keys().cloned().collect();
        data.get(&credentials::client_cert("west")).cloned().with_context(|| format!("keys are {keys:?}"))
    })
    .await;
    let bundle = maps(&pair.in_west).get(credentials::CA_BUNDLE_CONFIG_MAP).await.unwrap().data.unwrap();
    let scratch = Scratch::new("certificate").unwrap();
    let leaf = scratch.write("leaf.crt", &String::from_utf8(certificate.0).unwrap()).unwrap();
    let ca = scratch.write("ca.crt", &bundle[credentials::CA_BUNDLE]).unwrap();
    let openssl = async |args: &[&str]| {
        linkspan_tests::Program::new("openssl")
            .args(args)
            .arg(&leaf)
            .run(SOON)
            .await
            .unwrap()
            .success()
            .unwrap()
    };
    openssl(&["verify", "-purpose", "sslclient", "-CAfile", ca.to_str().unwrap()]).await;
    let text = openssl(&["x509", "-noout", "-text", "-in"]).await;
    let uri = format!(
        "URI:spiffe://{}/ns/linkspan/sa/{}",
        bundle[credentials::TRUST_DOMAIN],
        labels::REMOTE_ACCESS_ACCOUNT
    );
    assert!(text.contains(&uri), "{text}");
    let trust = eventually(SOON, "west's bundle for the gateways", async || {
        let data =
            maps(&pair.in_east).get(credentials::GATEWAY_TRUST_CONFIG_MAP).await?.data.unwrap_or_default();
        data.get(&credentials::peer_bundle("west")).cloned().context("it is not there")
    })
    .await;
    assert_eq!(trust.trim(), bundle[credentials::CA_BUNDLE].trim());

    // The access that came with the link is good for what west publishes and nothing else.
    let given = secrets.get(&names::credentials_secret("west")).await.unwrap().data.unwrap();
    let kubeconfig = String::from_utf8(given[credentials::KUBECONFIG].0.clone()).unwrap();
    let guest = pair.east.server.client(&kubeconfig).await.unwrap();
    let all = ListParams::default();
    api::<ExportedService>(&guest, labels::NAMESPACE).list(&all).await.expect("what is exported may be read");
    let refused = |what: &str, answer: Result<(), kube::Error>| match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => {}
        other => panic!("{what} must be forbidden: {other:?}"),
    };
    refused("Services", Api::<Service>::all(guest.clone()).list(&all).await.map(|_| ()));
    refused("slices", Api::<EndpointSlice>::all(guest.clone()).list(&all).await.map(|_| ()));
    refused("Secrets", api::<Secret>(&guest, labels::NAMESPACE).list(&all).await.map(|_| ()));
    refused("the CA", api::<Secret>(&guest, labels::NAMESPACE).get(credentials::CA_SECRET).await.map(|_| ()));
    let deleted =
        api::<ExportedService>(&guest, labels::NAMESPACE).delete("a", &DeleteParams::default()).await;
    refused("deleting an export", deleted.map(|_| ()));

    // Who deletes the account in west ends the link there.
    let account = ["-n", labels::NAMESPACE, "delete", "serviceaccount", labels::REMOTE_ACCESS_ACCOUNT];
    pair.west.server.kubectl(account).unwrap().run(SOON).await.unwrap().success().unwrap();
    let told = until(SOON * 2, async || {
        let status = pair.link().await?;
        let ends = status["conditions"].as_array().into_iter().flatten();
        let bad = ends.into_iter().any(|c| c["type"] == "CredentialsValid" && c["status"] == "False");
        ensure!(bad, "status is {status}");
        Ok(())
    });
    told.await.unwrap();
}
