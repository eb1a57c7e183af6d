//! A gateway pod, as far as the controller sees it: a stream of reports.

use anyhow::Result;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use linkspan_core::api::{
    gateway_report::{Event, LinkHealth},
    labels::{ADMIN_PORT_NAME, EGRESS_PORTS, GATEWAY, NAMESPACE},
    reason::Reason,
};
use linkspan_tests::installation::slice;
use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{interval, timeout},
};

/// The gateway; it ends on drop.
pub(crate) struct Gateway {
    address: Ipv4Addr,
    port: u16,
    alive: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Gateway {
    /// Says at `address` that every port is bound and link `link` is alive.
    pub(crate) async fn start(address: Ipv4Addr, link: &'static str) -> Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
        let port = listener.local_addr()?.port();
        let alive = watch::Sender::new(true);
        let state = alive.subscribe();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let state = state.clone();
                streams.spawn(async move { tell(stream, link, state).await.ok() });
            }
        });
        Ok(Self { address, port, alive, _tasks: tasks })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// From now on the link's gateway is alive, or dead.
    pub(crate) fn say(&self, alive: bool) {
        self.alive.send_replace(alive);
    }

    /// Tells the cluster where the gateway is.
    pub(crate) async fn place(&self, client: &Client) -> Result<()> {
        let slice =
            slice(NAMESPACE, GATEWAY, "played", &[(ADMIN_PORT_NAME, self.port)]).with("played", self.address);
        let api = Api::<EndpointSlice>::namespaced(client.clone(), NAMESPACE);
        api.patch("played", &PatchParams::apply("bench").force(), &Patch::Apply(&slice.0)).await?;
        Ok(())
    }
}

async fn tell(mut stream: TcpStream, link: &str, mut alive: watch::Receiver<bool>) -> Result<()> {
    let mut request = [0; 4096];
    timeout(Duration::from_secs(5), stream.read(&mut request)).await??;
    stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await?;
    let line = |event: &Event| anyhow::Ok(serde_json::to_string(event)? + "\n");
    let bound = (EGRESS_PORTS.0..=EGRESS_PORTS.1).collect();
    stream.write_all(line(&Event::Ports { bound, failed: vec![] })?.as_bytes()).await?;
    let mut beat = interval(Duration::from_secs(1));
    let mut told = None;
    loop {
        let now = *alive.borrow_and_update();
        if told != Some(now) {
            told = Some(now);
            let health = LinkHealth {
                alive: Some(now),
                reason: (!now).then_some(Reason::Timeout),
                latency_ms: now.then_some(1.0),
                ..LinkHealth::default()
            };
            let links = BTreeMap::from([(link.to_owned(), health)]);
            stream.write_all(line(&Event::State { draining: false, links })?.as_bytes()).await?;
        }
        tokio::select! {
            _ = beat.tick() => stream.write_all(line(&Event::Heartbeat {})?.as_bytes()).await?,
            changed = alive.changed() => changed?,
        }
    }
}
