//! What ends access at the gateways: a denied serial number, and an account that is deleted. Live streams are cut, new
//! connections refused, and only the documented way back leads back.

use crate::{
    secrets::assert_none_in,
    support::{SOON, condition, config_map, link_output, secret_texts},
};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, ResourceExt, api::ListParams};
use linkspan_core::api::{
    credentials::{DENIED_SERIALS, GATEWAY_TRUST_CONFIG_MAP, OWN_BUNDLE},
    labels::{EXPORTED, MANAGED_BY, NAMESPACE, REMOTE_ACCESS_ACCOUNT, SLICE_MANAGED_BY, SLICE_SERVICE_NAME},
};
use linkspan_tests::{
    Installation, Need, Process, Program, eventually, have,
    installation::slice,
    netns::{Namespace, Network},
    wait::throughout,
};
use serde_json::json;
use std::{net::SocketAddr, time::Duration};
use tokio::time::Instant;

const PEER: &str = env!("CARGO_BIN_EXE_test-peer");
/// What must not happen is watched for this long.
const A_WHILE: Duration = Duration::from_secs(3);

/// Where a gateway of east is ready for the mirror.
async fn ready_address(east: &Client) -> Result<SocketAddr> {
    let of = ListParams::default().labels(&format!("{SLICE_MANAGED_BY}={MANAGED_BY}"));
    let slices = Api::<EndpointSlice>::namespaced(east.clone(), "default").list(&of).await?.items;
    let slice =
        slices.iter().find(|s| s.labels().get(SLICE_SERVICE_NAME).is_some_and(|n| n == "ticker-west"));
    let slice = slice.with_context(|| format!("no slice of the mirror among {}", slices.len()))?;
    let mut endpoints = slice.endpoints.iter();
    let endpoint = endpoints.find(|e| e.conditions.as_ref().and_then(|c| c.ready) == Some(true));
    let endpoint = endpoint.with_context(|| format!("no gateway is ready: {:?}", slice.endpoints))?;
    let port = slice.ports.iter().flatten().find_map(|p| p.port).context("the slice has no port")?;
    Ok(SocketAddr::new(endpoint.addresses[0].parse()?, u16::try_from(port)?))
}

struct Pair {
    east: Installation,
    west: Installation,
    in_east: Client,
    in_west: Client,
    caller: Namespace,
}

impl Pair {
    /// A stream from `caller` to west's pod that is alive.
    async fn stream(&self) -> (Process, SocketAddr) {
        eventually(SOON, "a live stream", async || {
            let address = ready_address(&self.in_east).await?;
            let stream = self.call(address)?;
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                if stream.log().matches("tick").count() >= 3 {
                    return Ok((stream, address));
                }
            }
            anyhow::bail!("it said {:?}", stream.log())
        })
        .await
    }

    fn call(&self, address: SocketAddr) -> Result<Process> {
        let script = format!("exec 3<>/dev/tcp/{}/{}; cat <&3", address.ip(), address.port());
        self.caller.program("bash").args(["-c", &script]).start("caller")
    }

    /// Does `revoke`, and waits for the end of `stream`; how long that took, `kubectl` included.
    async fn cut(&self, mut stream: Process, what: &str, revoke: &[&str]) -> Duration {
        stream.running().unwrap();
        let begun = Instant::now();
        self.west(revoke).await;
        eventually(SOON, format!("the stream to be cut: {what}"), async || {
            ensure!(stream.running().is_err(), "it goes on");
            Ok(())
        })
        .await;
        begun.elapsed()
    }

    /// Nothing comes through at `address` for a while.
    async fn refused(&self, address: SocketAddr, why: &str) {
        throughout(A_WHILE, why, async || {
            let call = self.call(address)?;
            tokio::time::sleep(Duration::from_millis(700)).await;
            ensure!(!call.log().contains("tick"), "a pod of west answered");
            Ok(())
        })
        .await;
    }

    async fn west(&self, kubectl: &[&str]) {
        let kubectl = self.west.server.kubectl(kubectl.iter().copied()).unwrap();
        kubectl.run(SOON).await.unwrap().success().unwrap();
    }
}

/// Serial numbers of the certificates that a controller signed, from its log: where an administrator finds them, too.
fn signed_serials(log: &str) -> Vec<String> {
    let lines = log.lines().filter(|line| line.contains("signed a gateway's client certificate"));
    let serial = |line: &str| Some(line.split("serial=\"").nth(1)?.split('"').next()?.to_owned());
    lines.filter_map(serial).collect()
}

#[tokio::test]
async fn a_denied_serial_and_a_deleted_account_end_live_streams_and_let_nobody_in() {
    let tools = ["kube-controller-manager", "ip", "nsenter", "bash"].map(Need::Tool);
    if !have(&[Need::Root, Need::ApiServer]) || !have(&tools) {
        return;
    }
    let network = Network::new().unwrap();
    let [east_gateway, west_gateway, caller, pod] = std::array::from_fn(|_| network.namespace().unwrap());
    let host = network.host_address().into();
    let (east, west) = tokio::join!(
        Installation::new("east", host, east_gateway.address()),
        Installation::new("west", host, west_gateway.address())
    );
    let (mut east, mut west) = (east.unwrap(), west.unwrap());
    for (side, place) in [(&mut east, &east_gateway), (&mut west, &west_gateway)] {
        side.start_controller().await.unwrap();
        side.start_gateway_with(place, "trace,kube_client=trace").await.unwrap();
    }
    west.link_into(&east).await.unwrap();
    let _ticker = Program::new(PEER).args(["tick", "0.0.0.0:80"]).within(&pod).start("pod").unwrap();
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": "ticker", "labels": {EXPORTED: "true"}},
        "spec": {"ports": [{"name": "tcp", "port": 8080, "targetPort": 80}]},
    });
    let pods = slice("default", "ticker", "ticker", &[("tcp", 80)]).with("pod", pod.address());
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [service, pods.0]});
    west.server.apply(&both.to_string()).await.unwrap();
    let (in_east, in_west) = (east.server.admin().await.unwrap(), west.server.admin().await.unwrap());
    let mut pair = Pair { east, west, in_east, in_west, caller };
    let (stream, address) = pair.stream().await;
    let secrets = secret_texts(&pair.in_east, &pair.in_west).await;

    // A serial number is denied as ARCHITECTURE.md says; the certificate in use is the last that was signed.
    let serials = signed_serials(&pair.west.controller().unwrap().log());
    let serial = serials.last().expect("no certificate was signed");
    let deny =
        json!({"data": {DENIED_SERIALS: format!("serial={} # a lost laptop\n", serial.to_uppercase())}});
    let deny = deny.to_string();
    let patch = ["-n", NAMESPACE, "patch", "configmap", GATEWAY_TRUST_CONFIG_MAP, "--type=merge", "-p"];
    let deny = [&patch[..], &[&deny]].concat();
    let took = pair.cut(stream, "its certificate is denied", &deny).await;
    println!("a denied serial number cut the live stream after {took:?}");
    pair.refused(address, "a denied certificate is refused").await;
    let told = condition(&pair.in_east, "GatewayAlive", "False", "Identity").await;
    println!("the Link says: {told}");

    // Whatever the controller writes there, and even when the whole object is deleted, the denial stays.
    let spoil = json!({"data": {OWN_BUNDLE: "spoiled"}}).to_string();
    pair.west(&[&patch[..], &[&spoil]].concat()).await;
    let kept = async |pair: &Pair| {
        eventually(SOON, "the ConfigMap to be put right", async || {
            let map = config_map(&pair.in_west, GATEWAY_TRUST_CONFIG_MAP).await?;
            ensure!(
                map.get(OWN_BUNDLE).is_some_and(|pem| pem.contains("BEGIN CERTIFICATE")),
                "{:?}",
                map.keys()
            );
            ensure!(map.get(DENIED_SERIALS).is_some_and(|denied| denied.contains("lost laptop")), "{map:?}");
            Ok(())
        })
        .await;
    };
    kept(&pair).await;
    pair.west(&["-n", NAMESPACE, "delete", "configmap", GATEWAY_TRUST_CONFIG_MAP]).await;
    kept(&pair).await;
    pair.refused(address, "a denied certificate stays refused").await;

    // Taken from the list, it is good again.
    let allow = json!({"data": {DENIED_SERIALS: null}}).to_string();
    pair.west(&[&patch[..], &[&allow]].concat()).await;
    let (stream, address) = pair.stream().await;

    // The account is deleted: access ends at the gateway, and at the API.
    let delete = ["-n", NAMESPACE, "delete", "serviceaccount", REMOTE_ACCESS_ACCOUNT];
    let took = pair.cut(stream, "its account is deleted", &delete).await;
    println!("a deleted account cut the live stream after {took:?}");
    pair.refused(address, "a deleted account's certificate is refused").await;
    let told = condition(&pair.in_east, "CredentialsValid", "False", "Unauthorized").await;
    assert!(told.contains("link-cli --context <target cluster> link --cluster-name west"), "{told}");

    // An account of the same name is another one: what its predecessor was given stays refused.
    let install = pair.west.link_cli(["install", "--ignore-cluster", "--skip-crds"]).await.unwrap();
    pair.west.server.apply(&install).await.unwrap();
    pair.refused(address, "an account made anew does not revive certificates").await;
    pair.east.server.apply(&link_output(&pair.west, &[]).await).await.unwrap();
    pair.stream().await;

    // The gateways logged as much as they can.
    for side in [&mut pair.east, &mut pair.west] {
        let name = side.server.name().to_owned();
        for gateway in side.gateways() {
            gateway.running().unwrap();
            assert_none_in(&gateway.log(), &format!("the gateway of {name}"), &secrets);
        }
    }
}
