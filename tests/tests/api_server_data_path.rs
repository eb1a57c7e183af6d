//! A connection from one cluster to a pod of the other, through the real gateways and controllers.
//!
//! Gateways, the caller and the pod have namespaces, and so addresses, of their own; instead of kube-proxy the caller
//! goes to where the mirror's slice leads.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, ResourceExt, api::ListParams};
use linkspan_core::api::labels;
use linkspan_tests::{
    Installation, Need, Program, eventually, have,
    installation::slice,
    netns::{Namespace, Network},
};
use serde_json::json;
use std::{net::SocketAddr, time::Duration};

const SOON: Duration = Duration::from_secs(60);
/// Within this, whoever calls a gateway that has died or a Service that is gone is told.
const TOLD: Duration = Duration::from_secs(20);
const PEER: &str = env!("CARGO_BIN_EXE_test-peer");
const SERVICE: &str = "my-api";

/// Where the mirror's slice leads to, once a gateway is ready for it.
async fn ready_address(east: &Client) -> Result<SocketAddr> {
    let of = ListParams::default().labels(&format!("{}={}", labels::SLICE_MANAGED_BY, labels::MANAGED_BY));
    let slices = Api::<EndpointSlice>::namespaced(east.clone(), "default").list(&of).await?.items;
    let slice = slices
        .iter()
        .find(|s| s.labels().get(labels::SLICE_SERVICE_NAME).is_some_and(|n| n == "my-api-west"));
    let slice = slice.with_context(|| format!("no slice of the mirror among {}", slices.len()))?;
    let ready = |c: &k8s_openapi::api::discovery::v1::Endpoint| {
        c.conditions.as_ref().and_then(|c| c.ready) == Some(true)
    };
    let endpoint = slice.endpoints.iter().find(|e| ready(e));
    let endpoint = endpoint.with_context(|| format!("no gateway is ready: {:?}", slice.endpoints))?;
    let port = slice.ports.iter().flatten().find_map(|p| p.port).context("the slice has no port")?;
    Ok(SocketAddr::new(endpoint.addresses[0].parse()?, u16::try_from(port)?))
}

/// What a caller in `from` reads from `address` until it is closed.
async fn call(from: &Namespace, address: SocketAddr) -> Result<String> {
    let script = format!("exec 3<>/dev/tcp/{}/{}; cat <&3", address.ip(), address.port());
    from.program("timeout").args(["5", "bash", "-c", &script]).run(SOON).await?.success()
}

#[tokio::test]
async fn a_pod_of_the_other_cluster_answers_and_its_death_is_told() {
    let tools = ["kube-controller-manager", "ip", "nsenter", "bash", "timeout"].map(Need::Tool);
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
        side.start_gateway(place).await.unwrap();
    }
    west.link_into(&east).await.unwrap();
    let mut answering = Program::new(PEER)
        .args(["answer", "0.0.0.0:80", "hello from west"])
        .within(&pod)
        .start("pod")
        .unwrap();
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": SERVICE, "labels": {labels::EXPORTED: "true"}},
        "spec": {"ports": [{"name": "tcp", "port": 8080, "targetPort": 80}]},
    });
    let pods = slice("default", SERVICE, SERVICE, &[("tcp", 80)]).with("pod", pod.address());
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [service, pods.0]});
    west.server.apply(&both.to_string()).await.unwrap();

    let in_east = east.server.admin().await.unwrap();
    let address =
        eventually(SOON, "a gateway to be ready for the mirror", async || ready_address(&in_east).await)
            .await;
    assert_eq!(address.ip(), east_gateway.address());
    let mut answer = async || {
        answering.running()?;
        let text = call(&caller, address).await?;
        ensure!(text == "hello from west", "it said {text:?}");
        Ok(())
    };
    eventually(SOON, "the pod's answer", &mut answer).await;

    // The far gateway's machine is gone: the slice says so, and says so too when it is back.
    west_gateway.unplug().unwrap();
    eventually(TOLD, "the mirror to have no ready endpoint", async || {
        let found = ready_address(&in_east).await;
        ensure!(found.is_err(), "{found:?} is ready");
        Ok(())
    })
    .await;
    west_gateway.plug().unwrap();
    eventually(SOON, "a gateway to be ready again", async || ready_address(&in_east).await).await;
    eventually(SOON, "the pod's answer again", &mut answer).await;

    // What is no longer exported is not reached, whoever asks at whatever port.
    let stop = ["label", "service", SERVICE, &format!("{}-", labels::EXPORTED)];
    west.server.kubectl(stop).unwrap().run(SOON).await.unwrap().success().unwrap();
    eventually(TOLD, "the way to be closed", async || {
        let answer = call(&caller, address).await;
        let refused = !answer.as_ref().is_ok_and(|text| !text.is_empty());
        ensure!(refused, "it answers: {answer:?}");
        Ok(())
    })
    .await;
    answering.running().expect("the pod itself is well");
}
