//! TrafficSplits on real API servers with Kubernetes' own endpoint controller: an apex is taken over and given back, by
//! every way there is, and what is wrong with a split is told.
//!
//! Gateways, the caller and the pods have namespaces, and so addresses, of their own; instead of kube-proxy the caller
//! goes to where the apex's slices lead.
#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice, events::v1::Event};
use kube::{Api, Client, ResourceExt, api::ListParams};
use linkspan_core::api::{
    labels::{MANAGED_BY, SLICE_MANAGED_BY, SLICE_SERVICE_NAME, SPLIT},
    split::shadow_name,
    traffic_split::TrafficSplit,
};
use linkspan_tests::{
    Installation, Need, Process, Program, eventually, have,
    installation::slice,
    netns::{Namespace, Network},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::Ipv4Addr, net::SocketAddr, time::Duration};

const SOON: Duration = Duration::from_secs(60);
const PEER: &str = env!("CARGO_BIN_EXE_test-peer");
const API: &str = "my-api";

fn can_run() -> bool {
    let tools = ["kube-controller-manager", "kubectl", "ip", "nsenter", "bash", "timeout"].map(Need::Tool);
    have(&[Need::Root, Need::ApiServer]) && have(&tools)
}

fn service(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": name}, "spec": spec})
}

fn api() -> Value {
    service(
        API,
        &json!({"selector": {"app": API}, "ports": [{"name": "tcp", "port": 8080, "targetPort": 80}]}),
    )
}

fn split(name: &str, apex: &str, backends: &Value) -> Value {
    json!({"apiVersion": "split.smi-spec.io/v1alpha2", "kind": "TrafficSplit",
        "metadata": {"namespace": "default", "name": name}, "spec": {"service": apex, "backends": backends}})
}

fn list(items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// One cluster with a pod of `my-api` behind its Service.
struct Side {
    installation: Installation,
    client: Client,
    _answering: Process,
}

impl Side {
    async fn start(name: &str, host: Ipv4Addr, gateway: &Namespace, pod: &Namespace) -> Self {
        let mut installation = Installation::new(name, host.into(), gateway.address()).await.unwrap();
        installation.start_controller().await.unwrap();
        installation.start_gateway(gateway).await.unwrap();
        let answering = Program::new(PEER)
            .args(["answer", "0.0.0.0:80", name])
            .within(pod)
            .start(&format!("{name}-pod"))
            .unwrap();
        let client = installation.server.admin().await.unwrap();
        Self { installation, client, _answering: answering }
    }

    async fn apply(&self, items: &[Value]) {
        self.installation.server.apply(&list(items)).await.unwrap();
    }

    async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.installation.server.kubectl(args.iter().copied())?.run(SOON).await?.success()
    }

    /// A pod that is ready at `address`, as a kubelet would report it.
    async fn pod(&self, address: Ipv4Addr) {
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "default", "name": "my-api-0", "labels": {"app": API}},
            "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
        // Kubernetes passes over pods of nodes that it does not know.
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
        self.apply(&[node, pod]).await;
        let ip = address.to_string();
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}]}});
        let patch = [
            "-n",
            "default",
            "patch",
            "pod",
            "my-api-0",
            "--subresource=status",
            "--type=merge",
            "-p",
            &status.to_string(),
        ];
        self.kubectl(&patch).await.unwrap();
    }

    async fn apex(&self) -> Result<Service> {
        Ok(Api::<Service>::namespaced(self.client.clone(), "default").get(API).await?)
    }

    async fn selector(&self) -> Result<BTreeMap<String, String>> {
        self.apex().await?.spec.and_then(|s| s.selector).context("no selector")
    }

    async fn slices(&self, selector: &str) -> Result<Vec<EndpointSlice>> {
        let api = Api::<EndpointSlice>::namespaced(self.client.clone(), "default");
        Ok(api.list(&ListParams::default().labels(selector)).await?.items)
    }

    /// Addresses that kube-proxy would send clients of the apex to.
    async fn ready(&self) -> Result<Vec<SocketAddr>> {
        let mut found = Vec::new();
        for slice in self.slices(&format!("{SLICE_SERVICE_NAME}={API}")).await? {
            let port = slice.ports.iter().flatten().find_map(|p| p.port).unwrap_or_default();
            for endpoint in &slice.endpoints {
                if endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(true) {
                    found.push(SocketAddr::new(endpoint.addresses[0].parse()?, u16::try_from(port)?));
                }
            }
        }
        Ok(found)
    }

    /// Waits until a condition of a split has this status and reason.
    async fn told(&self, name: &str, kind: &str, status: &str, reason: &str) {
        eventually(SOON, format!("{name} to say {kind}={status} ({reason})"), async || {
            let split = Api::<TrafficSplit>::namespaced(self.client.clone(), "default").get(name).await?;
            let conditions = split.status.unwrap_or_default().conditions;
            let found = conditions.iter().any(|c| c.kind == kind && c.status == status && c.reason == reason);
            ensure!(found, "it says {conditions:?}");
            Ok(())
        })
        .await;
    }

    /// Waits until the apex is as if it had never been split.
    async fn given_back(&self, pod: Ipv4Addr) {
        eventually(SOON, "the apex to be given back", async || {
            let apex = self.apex().await?;
            ensure!(!apex.labels().contains_key(SPLIT), "it has our label");
            let selector = self.selector().await?;
            ensure!(
                selector == BTreeMap::from([("app".to_owned(), API.to_owned())]),
                "its selector is {selector:?}"
            );
            let ready = self.ready().await?;
            ensure!(ready == [SocketAddr::from((pod, 80))], "it leads to {ready:?}");
            let ours = self.slices(&format!("{SLICE_MANAGED_BY}={MANAGED_BY},{SPLIT}")).await?;
            ensure!(ours.is_empty(), "{} slices of ours are left", ours.len());
            let shadow =
                Api::<Service>::namespaced(self.client.clone(), "default").get_opt(&shadow_name(API)).await?;
            ensure!(shadow.is_none(), "its shadow is left");
            Ok(())
        })
        .await;
    }
}

/// What a caller in `from` reads from `address` until it is closed.
async fn call(from: &Namespace, address: SocketAddr) -> Result<String> {
    let script = format!("exec 3<>/dev/tcp/{}/{}; cat <&3", address.ip(), address.port());
    from.program("timeout").args(["5", "bash", "-c", &script]).run(SOON).await?.success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apex_is_taken_over_and_shared_out_and_given_back() {
    if !can_run() {
        return;
    }
    let network = Network::new().unwrap();
    let [east_gateway, west_gateway, caller, east_pod, west_pod] =
        std::array::from_fn(|_| network.namespace().unwrap());
    let host = network.host_address();
    let (mut east, west) = tokio::join!(
        Side::start("east", host, &east_gateway, &east_pod),
        Side::start("west", host, &west_gateway, &west_pod)
    );
    west.installation.link_into(&east.installation).await.unwrap();
    let mut exported = service(API, &json!({"ports": [{"name": "tcp", "port": 8080, "targetPort": 80}]}));
    exported["metadata"]["labels"] = json!({"mirror.linkerd.io/exported": "true"});
    let pods = slice("default", API, API, &[("tcp", 80)]).with("pod", west_pod.address());
    west.apply(&[exported, pods.0]).await;
    east.pod(east_pod.address()).await;
    let backends = json!([{"service": API, "weight": 80}, {"service": "my-api-west", "weight": 20}]);
    east.apply(&[api(), split("s", API, &backends)]).await;
    east.told("s", "Active", "True", "Active").await;
    east.told("s", "BackendsResolved", "True", "Resolved").await;
    assert_eq!(east.selector().await.unwrap().get(SPLIT).map(String::as_str), Some("true"));
    let gateway = eventually(SOON, "only the gateway to be ready for the apex", async || {
        let ready = east.ready().await?;
        ensure!(ready.len() == 1 && ready[0].ip() == east_gateway.address(), "{ready:?}");
        Ok(ready[0])
    })
    .await;
    // The apex's pods are there for when no gateway is ready.
    eventually(SOON, "the apex's own pod as the last resort", async || {
        let ours = east.slices(&format!("{SLICE_MANAGED_BY}={MANAGED_BY},{SPLIT}")).await?;
        let pod = [east_pod.address().to_string()];
        let last = ours.iter().flat_map(|s| &s.endpoints).find(|e| e.addresses == pod);
        let last = last.and_then(|e| e.conditions.clone()).context("it is not listed")?;
        let told = (last.ready, last.serving, last.terminating);
        ensure!(told == (Some(false), Some(true), Some(true)), "{told:?}");
        Ok(())
    })
    .await;

    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..50 {
        *counts.entry(call(&caller, gateway).await.unwrap()).or_default() += 1;
    }
    println!("{counts:?}");
    assert_eq!(counts, BTreeMap::from([("east".to_owned(), 40), ("west".to_owned(), 10)]));
    let stat = east.installation.link_cli(["stat", "trafficsplit"]).await;
    println!("{stat:?}");

    // A user's server-side apply does not fail because of us; it drops the key, which comes back, and that is told.
    let file = east.installation.server.write_kubeconfig("apex.json", &api().to_string()).unwrap();
    let file = file.to_str().unwrap().to_owned();
    east.kubectl(&["apply", "--server-side", "-f", &file]).await.expect("a user's apply must not fail");
    east.told("s", "SelectorContested", "True", "SelectorContested").await;
    eventually(SOON, "the key to come back", async || {
        ensure!(east.selector().await?.contains_key(SPLIT), "it is not there");
        Ok(())
    })
    .await;
    east.kubectl(&["apply", "--server-side", "-f", &file]).await.expect("nor a second time");
    east.told("s", "Active", "True", "Active").await;
    let events =
        Api::<Event>::namespaced(east.client.clone(), "default").list(&ListParams::default()).await.unwrap();
    let contested = events.items.iter().filter(|e| e.reason.as_deref() == Some("SelectorContested")).count();
    assert_eq!(contested, 1, "told once");

    // The controller is gone: gateways carry on.
    east.installation.controller().unwrap().kill().unwrap();
    assert!(call(&caller, gateway).await.is_ok());
    east.installation.start_controller().await.unwrap();
    east.kubectl(&["-n", "default", "delete", "trafficsplit", "s"]).await.unwrap();
    east.given_back(east_pod.address()).await;

    // Once more, and now the installation goes: there is no Deployment, so SIGTERM means just that.
    east.apply(&[split("s", API, &backends)]).await;
    east.told("s", "Active", "True", "Active").await;
    east.kubectl(&["-n", "linkspan", "delete", "deployment", "linkspan-mirror-controller"]).await.unwrap();
    east.installation.controller().unwrap().stop(Duration::from_secs(30)).unwrap();
    east.given_back(east_pod.address()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_ready_gateway_means_the_apexs_own_pods() {
    if !can_run() {
        return;
    }
    let network = Network::new().unwrap();
    let [gateway, caller, pod] = std::array::from_fn(|_| network.namespace().unwrap());
    let east = Side::start("east", network.host_address(), &gateway, &pod).await;
    east.pod(pod.address()).await;
    east.apply(&[api(), split("s", API, &json!([{"service": API, "weight": 1}]))]).await;
    east.told("s", "Active", "True", "Active").await;
    // As Kubernetes tells of a gateway whose probes fail; silence of all alone would be taken for our own fault.
    let listed =
        slice("linkspan", "linkspan-gateway", "east-gateway-0", &[("mc-gateway", 4143), ("admin", 9999)]);
    let mut failing = listed.clone().with("east-gateway-0", gateway.address()).0;
    failing["endpoints"][0]["conditions"] = json!({"ready": false, "serving": false, "terminating": false});
    gateway.unplug().unwrap();
    east.apply(&[failing]).await;
    eventually(SOON, "the apex's own pod to be ready", async || {
        let ready = east.ready().await?;
        ensure!(ready == [SocketAddr::from((pod.address(), 80))], "{ready:?}");
        Ok(())
    })
    .await;
    east.told("s", "Active", "False", "NoReadyGateway").await;
    assert_eq!(call(&caller, SocketAddr::from((pod.address(), 80))).await.unwrap(), "east");
    gateway.plug().unwrap();
    east.apply(&[listed.with("east-gateway-0", gateway.address()).0]).await;
    east.told("s", "Active", "True", "Active").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_told_by_condition_and_event() {
    if !can_run() {
        return;
    }
    let network = Network::new().unwrap();
    let [gateway, pod] = std::array::from_fn(|_| network.namespace().unwrap());
    let east = Side::start("east", network.host_address(), &gateway, &pod).await;
    east.pod(pod.address()).await;
    let ports = json!([{"name": "tcp", "port": 8080}]);
    let one = |service: &str| json!([{"service": service, "weight": 1}]);
    east.apply(&[
        api(),
        service("headless", &json!({"clusterIP": "None", "selector": {"app": API}, "ports": ports})),
        service("bare", &json!({"ports": ports})),
        service("local", &json!({"selector": {"app": API}, "internalTrafficPolicy": "Local", "ports": ports})),
        service("other-port", &json!({"selector": {"app": API}, "ports": [{"port": 9090}]})),
        service("second", &json!({"selector": {"app": API}, "ports": ports})),
        split("missing", "nobody", &one("nobody")),
        split("headless", "headless", &one("headless")),
        split("bare", "bare", &one("bare")),
        split("local", "local", &one("local")),
        split("left-out", API, &json!([{"service": API, "weight": 1}, {"service": "nobody", "weight": 1}, {"service": "other-port", "weight": 1}])),
        split("of-split", "second", &json!([{"service": API, "weight": 1}])),
    ])
    .await;
    for (name, reason) in [
        ("missing", "ApexMissing"),
        ("headless", "ApexHeadless"),
        ("bare", "ApexWithoutSelector"),
        ("local", "ApexLocalPolicy"),
        ("of-split", "NoBackends"),
    ] {
        east.told(name, "Active", "False", reason).await;
    }
    east.told("left-out", "Active", "True", "Active").await;
    east.told("left-out", "BackendsResolved", "False", "BackendUnknown").await;
    east.told("of-split", "BackendsResolved", "False", "BackendIsSplit").await;
    east.apply(&[split("too", API, &one(API))]).await;
    east.told("too", "Active", "False", "ApexTaken").await;
    eventually(SOON, "an Event for each", async || {
        let events =
            Api::<Event>::namespaced(east.client.clone(), "default").list(&ListParams::default()).await?;
        let reasons: Vec<&str> = events.items.iter().filter_map(|e| e.reason.as_deref()).collect();
        for reason in
            ["ApexMissing", "ApexHeadless", "ApexLocalPolicy", "BackendUnknown", "ApexTaken", "Active"]
        {
            ensure!(reasons.iter().filter(|r| **r == reason).count() == 1, "{reason} in {reasons:?}");
        }
        Ok(())
    })
    .await;

    // A policy that keeps gateways out: given back, and told; taken over again when it goes.
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"namespace": "default", "name": "closed"}, "spec": {"podSelector": {"matchLabels": {"app": API}}}});
    let gateway_pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "linkspan", "name": "gw", "labels": {"app.kubernetes.io/component": "gateway"}},
        "spec": {"containers": [{"name": "c", "image": "i", "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}}]}});
    east.apply(&[gateway_pod, policy]).await;
    east.told("left-out", "Active", "False", "NetworkPolicy").await;
    east.kubectl(&["-n", "default", "delete", "networkpolicy", "closed"]).await.unwrap();
    east.told("left-out", "Active", "True", "Active").await;
}
