//! Kinds of Services and namespaces, and which of them become mirrors.

use crate::{
    pair::{A_WHILE, Pair, SHOP, SOON, api, linked_with, merge},
    withheld,
};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use linkspan_core::api::{exported_service::ExportedService, labels, link::Link};
use linkspan_tests::{Need, eventually, have, http, installation::slice, wait::throughout};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

pub(crate) fn service(namespace: &str, name: &str, ports: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name, "labels": {labels::EXPORTED: "true", "team": "blue"}},
        "spec": {"ports": ports},
    })
}

fn pods(namespace: &str, service: &str, port: &str, number: u16) -> Value {
    slice(namespace, service, service, &[(port, number)]).with("pod", Ipv4Addr::new(10, 244, 0, 5)).0
}

/// The slice of a headless Service with these pods: host name, and whether it takes traffic.
fn members(name: &str, hosts: &[(&str, bool)]) -> Value {
    let mut slice = slice(SHOP, name, name, &[("http", 8080)]).0;
    let endpoint = |(n, (host, ready)): (usize, &(&str, bool))| {
        json!({
            "addresses": [format!("10.244.1.{}", n + 1)], "hostname": host,
            "conditions": {"ready": ready, "serving": ready, "terminating": false},
        })
    };
    slice["endpoints"] = hosts.iter().enumerate().map(endpoint).collect();
    slice
}

/// Proves: UDP and SCTP ports left out and told; names that are too long refused; labels excluded; a missing namespace
/// told and made up for, one made by the selector, one deleted and made again; the gate on exporting namespaces; what
/// is told is told by status and by one Event, and what the gate withholds by one about the Service itself.
#[tokio::test]
async fn each_kind_of_service_and_namespace_is_mirrored_or_told() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager")]) {
        return;
    }
    let values = ["createNamespaces=kubernetes.io/metadata.name=made", "exportNamespaces=exports!=never"];
    let mut pair = linked_with(&values).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(pair.in_east.clone());
    let namespace = |name: &str, labels: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    let spaces = ["absent", "made"].map(|name| namespace(name, json!({})));
    pair.apply(&pair.west, &spaces).await.unwrap();
    pair.apply(&pair.west, &[namespace("private", json!({"exports": "never"}))]).await.unwrap();
    pair.apply(&pair.east, &[namespace("private", json!({}))]).await.unwrap();
    let http = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    let long = "a-name-that-is-fine-by-itself-but-not-with-the-name-of-the-link";
    let mixed = json!([
        {"name": "http", "port": 80, "protocol": "TCP", "appProtocol": "kubernetes.io/h2c"},
        {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "ss7", "port": 2905, "protocol": "SCTP"},
    ]);
    let all = [
        service(SHOP, "mixed", &mixed),
        pods(SHOP, "mixed", "http", 8080),
        service(SHOP, "udp", &json!([{"port": 53, "protocol": "UDP"}])),
        service(SHOP, long, &http),
        service("absent", "late", &http),
        service("made", "early", &http),
        service("private", "hidden", &http),
    ];
    pair.apply(&pair.west, &all).await.unwrap();

    // Ports.
    let mixed = pair.mirrored("mixed").await;
    let ports = mixed.spec.clone().unwrap().ports.unwrap();
    assert_eq!(
        (ports.len(), ports[0].port, ports[0].app_protocol.as_deref()),
        (1, 80, Some("kubernetes.io/h2c"))
    );
    let told = pair.told("west", "mixed", "PortsLeftOut").await;
    assert!(told.contains("53/UDP") && told.contains("2905/SCTP"), "{told}");
    pair.told("west", "udp", "InvalidService").await;
    assert!(pair.told("west", long, "InvalidService").await.contains("63"));
    let shown = pair.east.link_cli(["services"]).await.unwrap();
    assert!(shown.contains("mixed"), "{shown}");

    // Labels.
    assert_eq!(mixed.labels()["team"], "blue");
    let links: Api<Link> = api(&pair.in_east, labels::NAMESPACE);
    merge(&links, "west", &json!({"spec": {"excludedLabels": ["team"]}})).await;
    eventually(SOON, "the excluded label to go", async || {
        ensure!(!pair.mirror("mixed").await?.labels().contains_key("team"), "it is there");
        Ok(())
    })
    .await;

    // Namespaces.
    pair.told("west", "late", "MissingNamespace").await;
    let late = || api::<Service>(&pair.in_east, "absent");
    pair.apply(&pair.east, &[namespace("absent", json!({}))]).await.unwrap();
    eventually(SOON, "the mirror in the new namespace", async || Ok(late().get("late-west").await?)).await;
    let early = api::<Service>(&pair.in_east, "made");
    eventually(SOON, "the mirror in the namespace that was made", async || {
        Ok(early.get("early-west").await?)
    })
    .await;
    assert_eq!(namespaces.get("made").await.unwrap().labels()[labels::CLUSTER_NAME], "west");
    namespaces.delete("absent", &DeleteParams::default()).await.unwrap();
    eventually(SOON, "the namespace to be gone", async || {
        ensure!(namespaces.get_opt("absent").await?.is_none(), "it is there");
        Ok(())
    })
    .await;
    pair.apply(&pair.east, &[namespace("absent", json!({}))]).await.unwrap();
    eventually(SOON, "the mirror to return with its namespace", async || Ok(late().get("late-west").await?))
        .await;

    // The gate of the exporting cluster.
    let exports: Api<ExportedService> = api(&pair.in_west, labels::NAMESPACE);
    let hidden = api::<Service>(&pair.in_east, "private");
    assert!(exports.get_opt("private.hidden").await.unwrap().is_none());
    withheld::is_told_once(&mut pair).await.unwrap();
    let gate = Api::<Namespace>::all(pair.in_west.clone());
    merge(&gate, "private", &json!({"metadata": {"labels": {"exports": null}}})).await;
    eventually(SOON, "the mirror of what may now be exported", async || {
        Ok(hidden.get("hidden-west").await?)
    })
    .await;
    merge(&gate, "private", &json!({"metadata": {"labels": {"exports": "never"}}})).await;
    eventually(SOON, "what may no longer be exported to be gone", async || {
        ensure!(exports.get_opt("private.hidden").await?.is_none(), "it is published");
        ensure!(hidden.get_opt("hidden-west").await?.is_none(), "it is mirrored");
        Ok(())
    })
    .await;
    tampering_with_what_is_published_is_put_right(&pair).await.unwrap();
    metrics_are_there(&pair).await.unwrap();
}

async fn tampering_with_what_is_published_is_put_right(pair: &Pair) -> Result<()> {
    let exports: Api<ExportedService> = api(&pair.in_west, labels::NAMESPACE);
    let right = exports.get("shop.mixed").await?.spec;
    merge(&exports, "shop.mixed", &json!({"spec": {"ports": []}, "metadata": {"labels": null}})).await;
    exports.delete("shop.udp", &DeleteParams::default()).await?;
    let stray = json!({"apiVersion": "linkspan.dev/v1alpha1", "kind": "ExportedService",
        "metadata": {"namespace": labels::NAMESPACE, "name": "shop.stray"}, "spec": {"namespace": SHOP, "name": "stray"}});
    pair.apply(&pair.west, &[stray]).await?;
    eventually(SOON, "what is published to be right again", async || {
        let now = exports.get("shop.mixed").await?;
        ensure!(now.spec == right && !now.labels().is_empty(), "it is {now:?}");
        exports.get("shop.udp").await?;
        ensure!(exports.get_opt("shop.stray").await?.is_none(), "the stray is there");
        Ok(())
    })
    .await;
    Ok(())
}

async fn metrics_are_there(pair: &Pair) -> Result<()> {
    let log = pair.east.controller_log();
    let admin =
        log.lines().find_map(|l| l.split("admin=").nth(1)?.split_whitespace().next().map(str::to_owned));
    let admin = admin.expect("the controller says where its admin page is");
    let text = http::get(&admin, "/metrics").await?;
    for name in [
        "gateway_enabled{target_cluster_name=\"west\"} 1",
        "gateway_alive{",
        "gateway_latency{",
        "service_cache_size{cluster=\"west\"}",
        "service_mirror_endpoint_repairs{",
        "linkspan_mirror_lag_seconds_count{target_cluster_name=\"west\"}",
        "linkspan_writes_total{verb=\"create\",kind=\"Service\"}",
        "linkspan_reconcile_queue ",
        "linkspan_ports_allocated ",
        "linkspan_ports_range 22768",
        "linkspan_conflicts{target_cluster_name=\"west\"} 0",
        "linkspan_leader 1",
    ] {
        assert!(text.contains(name), "no {name} in {text}");
    }
    Ok(())
}

/// Proves: a root whose slice carries host names, a mirror per pod with target and service port; scaling, readiness
/// and metadata touch no other pod's objects; a Service wins a name over a pod; two Links that want one name; slices
/// that Kubernetes made for a mirror with a selector are removed; the gateway's addresses are followed; columns.
#[tokio::test]
async fn headless_services_and_names_that_several_want() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager")]) {
        return;
    }
    let pair = linked_with(&[]).await.unwrap();
    let services: Api<Service> = api(&pair.in_east, SHOP);
    let mut web = service(SHOP, "web", &json!([{"name": "http", "port": 80, "targetPort": 8080}]));
    web["spec"]["clusterIP"] = json!("None");
    let both = members("web", &[("web-0", true), ("web-1", true)]);
    pair.apply(&pair.west, &[web.clone(), both.clone()]).await.unwrap();
    let hosts = async || -> Result<Vec<(String, String, bool)>> {
        let slice = api::<EndpointSlice>(&pair.in_east, SHOP).get("web-west-ipv4").await?;
        let host = |e: &k8s_openapi::api::discovery::v1::Endpoint| {
            let ready = e.conditions.as_ref().and_then(|c| c.ready).unwrap_or_default();
            (e.hostname.clone().unwrap_or_default(), e.addresses[0].clone(), ready)
        };
        Ok(slice.endpoints.iter().map(host).collect())
    };
    let ip = async |name: &str| -> Result<String> {
        services.get(name).await?.spec.and_then(|s| s.cluster_ip).context("no address")
    };
    eventually(SOON, "the root with both pods", async || {
        let wanted = vec![
            ("web-0".to_owned(), ip("web-0-west").await?, true),
            ("web-1".to_owned(), ip("web-1-west").await?, true),
        ];
        let found = hosts().await?;
        ensure!(found == wanted, "{found:?}");
        Ok(())
    })
    .await;
    assert_eq!(ip("web-west").await.unwrap(), "None");
    let one = services.get("web-0-west").await.unwrap();
    let offered: Vec<i32> = one.spec.clone().unwrap().ports.unwrap().iter().map(|p| p.port).collect();
    assert_eq!(offered, [8080, 80], "what clients of the pods dial, and what the Service says");
    assert_eq!(one.labels()[labels::HEADLESS_MIRROR_SVC_NAME], "web-west");

    // Not ready, gone, and new metadata: the other pod's objects are not touched.
    let slices: Api<EndpointSlice> = api(&pair.in_east, SHOP);
    let others = async || -> Result<_> {
        let versions = (services.get("web-0-west").await?, slices.get("web-0-west-ipv4").await?);
        Ok((versions.0.resource_version(), versions.1.resource_version()))
    };
    let before = others().await.unwrap();
    pair.apply(&pair.west, &[members("web", &[("web-0", true), ("web-1", false)])]).await.unwrap();
    eventually(SOON, "the second pod not to be ready", async || {
        let found = hosts().await?;
        ensure!(found.get(1).is_some_and(|(_, _, ready)| !ready), "{found:?}");
        Ok(())
    })
    .await;
    pair.apply(&pair.west, &[members("web", &[("web-0", true)])]).await.unwrap();
    eventually(SOON, "the second pod's mirror to be gone", async || {
        ensure!(services.get_opt("web-1-west").await?.is_none() && hosts().await?.len() == 1, "it is there");
        Ok(())
    })
    .await;
    web["metadata"]["annotations"] = json!({"team.example/page": "blue"});
    pair.apply(&pair.west, &[web]).await.unwrap();
    eventually(SOON, "the new annotation", async || {
        let root = services.get("web-west").await?;
        ensure!(root.annotations().contains_key("team.example/page"), "{:?}", root.annotations());
        Ok(())
    })
    .await;
    let after = others().await.unwrap();
    assert_eq!(after.1, before.1, "the slice of a pod that stayed as it was");

    // A Service of the same name as a pod gets the name.
    let http = json!([{"name": "http", "port": 80}]);
    pair.apply(&pair.west, &[service(SHOP, "web-0", &http)]).await.unwrap();
    pair.told("west", "web-0.web", "NameTaken").await;
    eventually(SOON, "the Service to have the name", async || {
        let mirror = services.get("web-0-west").await?;
        ensure!(!mirror.labels().contains_key(labels::HEADLESS_MIRROR_SVC_NAME), "{:?}", mirror.labels());
        Ok(())
    })
    .await;

    two_links_want_one_name(&pair).await.unwrap();
    what_kubernetes_makes_for_a_mirror_is_removed(&pair).await.unwrap();
    the_gateways_addresses_are_followed(&pair).await.unwrap();
}

async fn two_links_want_one_name(pair: &Pair) -> Result<()> {
    let links: Api<Link> = api(&pair.in_east, labels::NAMESPACE);
    let services: Api<Service> = api(&pair.in_east, SHOP);
    let http = json!([{"name": "http", "port": 80}]);
    pair.apply(&pair.west, &[service(SHOP, "a-b", &http)]).await?;
    let mirror = pair.mirrored("a-b").await;
    let mut other = serde_json::to_value(links.get("west").await?)?;
    other["metadata"] = json!({"namespace": labels::NAMESPACE, "name": "b-west"});
    other["spec"]["targetClusterName"] = json!("b-west");
    other["spec"]["clusterCredentialsSecret"] = json!("cluster-credentials-west");
    other["spec"]["selector"] = json!({"matchLabels": {"extra": "yes"}});
    other.as_object_mut().context("a Link is an object")?.remove("status");
    let reader = json!({"name": "b-west", "namespace": labels::NAMESPACE});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": reader, "rules": [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch", "update"],
         "resourceNames": ["cluster-credentials-b-west-live"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"],
         "resourceNames": ["link-ca-bundle-b-west"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": reader,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "b-west"},
        "subjects": [{"kind": "ServiceAccount", "name": labels::CONTROLLER, "namespace": labels::NAMESPACE}]});
    pair.apply(&pair.east, &[role, binding, other]).await?;
    let mut a = service(SHOP, "a", &http);
    a["metadata"]["labels"]["extra"] = json!("yes");
    pair.apply(&pair.west, &[a]).await?;
    pair.told("b-west", "a", "NameTaken").await;
    assert_eq!(services.get("a-b-west").await?.uid(), mirror.uid());
    pair.stop_export("a-b").await;
    eventually(SOON, "the other Link to get the name", async || {
        let mirror = services.get("a-b-west").await?;
        ensure!(mirror.labels()[labels::CLUSTER_NAME] == "b-west", "{:?}", mirror.labels());
        Ok(())
    })
    .await;
    links.delete("b-west", &DeleteParams::default()).await?;
    eventually(SOON, "everything of the other Link to be gone", async || {
        ensure!(services.get_opt("a-b-west").await?.is_none(), "it is there");
        Ok(())
    })
    .await;
    pair.mirrored("a").await;
    Ok(())
}

async fn what_kubernetes_makes_for_a_mirror_is_removed(pair: &Pair) -> Result<()> {
    let services: Api<Service> = api(&pair.in_east, SHOP);
    let of = ListParams::default().labels(&format!("{}=a-west", labels::SLICE_SERVICE_NAME));
    let foreign = async || -> Result<usize> {
        let slices = api::<EndpointSlice>(&pair.in_east, SHOP).list(&of).await?.items;
        Ok(slices.iter().filter(|s| s.labels()[labels::SLICE_MANAGED_BY] != labels::MANAGED_BY).count())
    };
    // The selector stands until Kubernetes has seen it.
    pair.east.server.faults().fail("PUT", "/services/a-west", 500, 10_000);
    merge(&services, "a-west", &json!({"spec": {"selector": {"app": "evil"}}})).await;
    eventually(SOON, "Kubernetes to make a slice", async || {
        ensure!(foreign().await? > 0, "there is none");
        Ok(())
    })
    .await;
    pair.east.server.faults().stop_failing();
    eventually(SOON, "selector and slice to be gone", async || {
        let selector = services.get("a-west").await?.spec.and_then(|s| s.selector).unwrap_or_default();
        ensure!(selector.is_empty() && foreign().await? == 0, "selector {selector:?}");
        Ok(())
    })
    .await;
    throughout(A_WHILE, "no foreign slice", async || {
        ensure!(foreign().await? == 0, "there is one");
        Ok(())
    })
    .await;
    Ok(())
}

async fn the_gateways_addresses_are_followed(pair: &Pair) -> Result<()> {
    let ingress = json!([{"ip": "10.213.255.7"}, {"ip": "10.213.255.8"}, {"hostname": "gw.example"}]);
    let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
    let patch = ["-n", labels::NAMESPACE, "patch", "service", labels::GATEWAY, "--subresource=status"];
    let patch = pair.west.server.kubectl(patch)?.args(["--type=merge", "-p", &status.to_string()]);
    patch.run(SOON).await?.success()?;
    eventually(SOON, "the new addresses", async || {
        let status = pair.link().await?;
        let wanted = json!(["10.213.255.7:4143", "10.213.255.8:4143", "gw.example:4143"]);
        ensure!(status["gatewayAddresses"] == wanted, "{status}");
        Ok(())
    })
    .await;
    let get = pair.east.server.kubectl(["-n", labels::NAMESPACE, "get", "link", "west"])?;
    let shown = get.run(SOON).await?.success()?;
    for column in ["ALIVE", "SYNCED", "SERVICES", "FAILING", "AGE"] {
        assert!(shown.contains(column), "{shown}");
    }
    Ok(())
}
