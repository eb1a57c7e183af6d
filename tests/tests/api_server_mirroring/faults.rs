//! Faults of both APIs, of the controller, and of credentials: afterwards everything is as if nothing had been.

use crate::pair::{Pair, SHOP, SOON, api, linked, linked_with, merge};
use anyhow::{Context, Result, ensure};
use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{Namespace, Secret, Service},
        discovery::v1::EndpointSlice,
    },
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use linkspan_core::api::{
    credentials,
    exported_service::{ExportedPort, ExportedService, ExportedServiceSpec},
    labels, names,
};
use linkspan_tests::{Need, eventually, have, wait::throughout};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// Proves: writes answered 429, 500 and 409 are made up for; watches that expired (410) and a list page that broke;
/// an API that is slow by two seconds, paused, or killed, on either side; mirrors stand meanwhile, and other things
/// go on.
#[tokio::test]
async fn faults_of_either_api_are_made_up_for() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager")]) {
        return;
    }
    let mut pair = linked().await.unwrap();
    pair.export("first").await.unwrap();
    pair.mirrored("first").await;

    // Writes that are refused.
    let east = pair.east.server.faults();
    east.fail("POST", "/services", 429, 2);
    east.fail("POST", "/endpointslices", 500, 2);
    east.fail("PATCH", "/links/west/status", 500, 1);
    pair.west.server.faults().fail("POST", "/exportedservices", 500, 2);
    pair.export("refused").await.unwrap();
    eventually(SOON, "the mirror and its slice", async || pair.route("refused").await).await;
    east.fail("PUT", "/services/refused-west", 409, 2);
    let services: Api<Service> = api(&pair.in_east, SHOP);
    merge(&services, "refused-west", &json!({"metadata": {"labels": {"team": "red"}}})).await;
    eventually(SOON, "the edit to be put right", async || {
        ensure!(pair.mirror("refused").await?.labels()["team"] == "blue", "it is not");
        Ok(())
    })
    .await;

    // Watches whose place was forgotten, on both sides.
    for (side, faults) in [("east", pair.east.server.faults()), ("west", pair.west.server.faults())] {
        faults.fail("GET", "watch=true", 410, 8);
        faults.bytes().cut();
        let name = format!("after-410-in-{side}");
        pair.export(&name).await.unwrap();
        pair.mirrored(&name).await;
        faults.stop_failing();
    }

    // Slow, and paused.
    let west = pair.west.server.faults().bytes();
    west.delay(Duration::from_secs(1));
    pair.export("slowly").await.unwrap();
    pair.mirrored("slowly").await;
    west.delay(Duration::ZERO);
    let east = pair.east.server.faults().bytes();
    east.delay(Duration::from_secs(1));
    pair.export("slower").await.unwrap();
    eventually(SOON * 2, "the mirror by a slow API", async || pair.mirror("slower").await).await;
    east.delay(Duration::ZERO);
    pair.west.server.faults().bytes().pause();
    pair.stop_export("slowly").await;
    pair.west.server.faults().bytes().resume();
    pair.gone("slowly").await;

    // Killed, one after the other.
    pair.west.server.kill().await.unwrap();
    let lost = pair.condition("Synced", "False").await;
    let told = lost["message"].as_str().unwrap_or_default();
    assert!(told.contains("not reached since"), "since when and why: {told}");
    merge(&services, "first-west", &json!({"metadata": {"labels": {"team": "red"}}})).await;
    eventually(SOON, "drift to be put right while the target is away", async || {
        ensure!(pair.mirror("first").await?.labels()["team"] == "blue", "it is not");
        Ok(())
    })
    .await;
    pair.west.server.restart().await.unwrap();
    pair.in_west = pair.west.server.admin().await.unwrap();
    pair.condition("Synced", "True").await;
    pair.east.server.kill().await.unwrap();
    pair.export("meanwhile").await.unwrap();
    pair.east.server.restart().await.unwrap();
    pair.in_east = pair.east.server.admin().await.unwrap();
    eventually(SOON * 2, "the mirror after the restart", async || pair.mirror("meanwhile").await).await;

    a_list_of_two_pages_breaks_between_them(&mut pair).await.unwrap();
}

async fn a_list_of_two_pages_breaks_between_them(pair: &mut Pair) -> Result<()> {
    pair.west.controller()?.kill()?;
    let exports: Api<ExportedService> = api(&pair.in_west, labels::NAMESPACE);
    for n in 0..220 {
        let port = ExportedPort { port: 80, protocol: "TCP".to_owned(), ..ExportedPort::default() };
        let name = format!("many-{n}");
        let spec = ExportedServiceSpec {
            namespace: SHOP.to_owned(),
            labels: BTreeMap::from([(labels::EXPORTED.to_owned(), "true".to_owned())]),
            ports: vec![port],
            name: name.clone(),
            ..ExportedServiceSpec::default()
        };
        let export = ExportedService::new(&names::export_name(SHOP, &name), spec);
        exports.create(&PostParams::default(), &export).await?;
    }
    let count = async || -> Result<usize> {
        let mirrors = ListParams::default().labels(&format!("{}=true", labels::MIRRORED));
        let all = api::<Service>(&pair.in_east, SHOP).list_metadata(&mirrors).await?.items;
        Ok(all.iter().filter(|s| s.name_any().starts_with("many-")).count())
    };
    let faults = pair.west.server.faults();
    faults.fail("GET", "watch=true", 410, 8);
    faults.fail("GET", "continue=", 500, 1);
    faults.fail("GET", "continue=", 410, 1);
    faults.bytes().cut();
    eventually(SOON * 2, "all mirrors of both pages", async || {
        let count = count().await?;
        ensure!(count == 220, "{count} mirrors");
        Ok(())
    })
    .await;
    faults.stop_failing();
    pair.west.start_controller().await?;
    eventually(SOON * 2, "what nobody exports to be gone", async || {
        let count = count().await?;
        ensure!(count == 0, "{count} mirrors");
        Ok(())
    })
    .await;
    Ok(())
}

/// What stands of Service `name` in east, without what a run decides: versions, uids, addresses and gateway ports.
async fn outline(pair: &Pair, name: &str) -> Result<Value> {
    let service = pair.mirror(name).await?;
    let (slice, route) = pair.route(name).await?;
    let spec = service.spec.clone().unwrap_or_default();
    let ports: Vec<Value> =
        spec.ports.iter().flatten().map(|p| json!([p.name, p.port, p.protocol])).collect();
    let annotations: BTreeMap<_, _> =
        service.annotations().iter().filter(|(key, _)| *key != labels::REMOTE_RESOURCE_VERSION).collect();
    ensure!(slice.owner_references().first().map(|o| &o.uid) == service.uid().as_ref(), "not its own slice");
    let listed: Vec<Option<i32>> = slice.ports.iter().flatten().map(|p| p.port).collect();
    ensure!(listed == route.ports.keys().map(|p| Some(i32::from(*p))).collect::<Vec<_>>(), "{listed:?}");
    let targets: Vec<String> = route.ports.values().map(ToString::to_string).collect();
    Ok(json!({"labels": service.labels(), "annotations": annotations, "ports": ports, "targets": targets}))
}

/// Proves: killed with `kill -9` before each write of a sequence, the controller that starts next reaches the state that
/// an undisturbed one reaches: namespace, Service, slice, allocation and status when a mirror is made; Service and
/// slice when it goes.
#[tokio::test]
async fn killed_before_any_write_the_end_is_the_same() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager")]) {
        return;
    }
    let mut pair = linked_with(&["createNamespaces=kubernetes.io/metadata.name=made"]).await.unwrap();
    pair.export("undisturbed").await.unwrap();
    let right = eventually(SOON, "an undisturbed mirror", async || outline(&pair, "undisturbed").await).await;
    let right = right.to_string();
    let steps = [
        ("service", "POST", "/services"),
        ("slice", "POST", "/endpointslices"),
        ("ports", "PATCH", "/configmaps/linkspan-ports"),
        ("status", "PATCH", "/links/west/status"),
    ];
    for (step, method, path) in steps {
        let name = format!("killed-at-{step}");
        killed(&mut pair, (method, path), async |pair: &Pair| pair.export(&name).await).await.unwrap();
        eventually(SOON, format!("the same end after {step}"), async || {
            let found = outline(&pair, &name).await?.to_string().replace(&name, "undisturbed");
            ensure!(found == right, "{found} is not {right}");
            Ok(())
        })
        .await;
    }
    killed(&mut pair, ("POST", "/api/v1/namespaces"), async |pair: &Pair| {
        let http = json!([{"name": "http", "port": 80}]);
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "made"}});
        let service = json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": http},
            "metadata": {"namespace": "made", "name": "inside", "labels": {labels::EXPORTED: "true"}}});
        pair.apply(&pair.west, &[namespace, service]).await
    })
    .await
    .unwrap();
    eventually(SOON, "namespace and mirror", async || {
        Api::<Namespace>::all(pair.in_east.clone()).get("made").await?;
        Ok(api::<Service>(&pair.in_east, "made").get("inside-west").await?)
    })
    .await;
    for (name, path) in [("killed-at-service", "/services/"), ("killed-at-slice", "/endpointslices/")] {
        killed(&mut pair, ("DELETE", path), async |pair: &Pair| {
            pair.stop_export(name).await;
            Ok(())
        })
        .await
        .unwrap();
        pair.gone(name).await;
    }
    let slices = api::<EndpointSlice>(&pair.in_east, SHOP);
    let ours = ListParams::default().labels(&format!("{}={}", labels::SLICE_MANAGED_BY, labels::MANAGED_BY));
    let slices = slices.list(&ours).await.unwrap().items;
    let mut ports = Vec::new();
    for slice in &slices {
        ports.extend(slice.ports.iter().flatten().filter_map(|p| p.port));
    }
    ports.sort_unstable();
    let all = ports.len();
    ports.dedup();
    assert_eq!((ports.len(), all), (3, 3), "no port twice, none left over");
}

/// Lets `change` happen while east's controller cannot make the one write, kills it when it has tried, and starts it
/// anew without that fault.
async fn killed(
    pair: &mut Pair,
    (method, path): (&str, &str),
    change: impl AsyncFn(&Pair) -> Result<()>,
) -> Result<()> {
    let faults = pair.east.server.faults();
    faults.forget_requests();
    faults.fail(method, path, 500, 100_000);
    change(pair).await?;
    eventually(SOON, format!("{method} {path} to be tried"), async || {
        let seen = pair.east.server.faults().requests();
        seen.iter()
            .find(|r| r.method == method && r.path.contains(path) && r.status == 500)
            .context("not yet")?;
        Ok(())
    })
    .await;
    pair.east.controller()?.kill()?;
    pair.east.server.faults().stop_failing();
    pair.east.start_controller().await?;
    Ok(())
}

/// Proves: a standby takes over at once when the leader ends by SIGTERM, and writes within seconds; credentials that
/// are replaced are taken into use, and mirrors stand throughout.
#[tokio::test]
async fn a_standby_takes_over_and_new_credentials_take_effect() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager")]) {
        return;
    }
    let mut pair = linked().await.unwrap();
    pair.export("stays").await.unwrap();
    pair.mirrored("stays").await;
    let standby = pair.east.controller_named("standby").await.unwrap();
    eventually(SOON, "the standby to know the target", async || {
        ensure!(standby.log().contains("exports were listed"), "{}", standby.tail());
        Ok(())
    })
    .await;
    pair.east.controller().unwrap().stop(Duration::from_secs(10)).unwrap();
    // The Lease would last for fifteen seconds more.
    eventually(Duration::from_secs(8), "the standby to lead", async || {
        ensure!(standby.log().contains("leader=true"), "{}", standby.tail());
        Ok(())
    })
    .await;
    pair.export("after").await.unwrap();
    pair.mirrored("after").await;

    // A second account: its token is put in place of the first one's, which is then deleted.
    let secrets: Api<Secret> = api(&pair.in_east, labels::NAMESPACE);
    let url = pair.west.server.url();
    let allow = pair.west.link_cli(["allow", "--service-account-name", "second"]).await.unwrap();
    pair.west.server.apply(&allow).await.unwrap();
    let kubeconfig = pair.west.server.kubeconfig_of(labels::NAMESPACE, "second").await.unwrap();
    assert!(kubeconfig.contains(&url));
    let data = BTreeMap::from([(credentials::KUBECONFIG, ByteString(kubeconfig.into_bytes()))]);
    merge(&secrets, &names::credentials_secret("west"), &json!({"data": data})).await;
    eventually(SOON, "the second account to be used", async || {
        ensure!(standby.log().contains("second"), "{}", standby.tail());
        Ok(())
    })
    .await;
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = api(&pair.in_west, labels::NAMESPACE);
    accounts.delete(labels::REMOTE_ACCESS_ACCOUNT, &DeleteParams::default()).await.unwrap();
    pair.export("second").await.unwrap();
    pair.mirrored("second").await;
    throughout(Duration::from_secs(2), "mirrors stand", async || pair.mirror("stays").await.map(|_| ()))
        .await;
}
