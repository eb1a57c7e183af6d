//! A split of `api` at east over real sockets: one backend in this cluster, one behind a tunnel.
#![allow(dead_code, reason = "each test program uses a part of this")]

use crate::pair::{self, Pair};
use linkspan_core::api::split::{Place, Protocol, Remote, SplitBackend, SplitPort, SplitRoute};
use linkspan_gateway::{
    egress::port_table::SliceRow as PortRow,
    ingress::service_table::{Endpoint, SliceRow},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::net::TcpListener;

/// The gateway's port of the apex.
pub(crate) const APEX: u16 = 10_300;

/// Both gateways, and a split of `api` at east: this cluster's pod and west's Service.
pub(crate) struct Split {
    pub(crate) pair: Pair,
    pub(crate) local: TcpListener,
}

impl Split {
    pub(crate) async fn start(weights: [u64; 2], protocol: Protocol) -> Self {
        Self::on(Pair::start().await, weights, protocol).await
    }

    /// A split on gateways that run already.
    pub(crate) async fn on(pair: Pair, weights: [u64; 2], protocol: Protocol) -> Self {
        let local = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let split = Self { pair, local };
        split.set_pod(Some(split.local.local_addr().unwrap()));
        split.set(weights, protocol);
        split
    }

    pub(crate) fn set_pod(&self, address: Option<SocketAddr>) {
        let endpoint = |ip: IpAddr| Endpoint {
            ip,
            hostname: None,
            ready: true,
            serving_while_terminating: false,
            for_zones: Vec::new(),
        };
        let row = address.map(|address| SliceRow {
            service: "api".to_owned(),
            ports: vec![("http".to_owned(), address.port())],
            endpoints: vec![endpoint(address.ip())],
            ..SliceRow::default()
        });
        self.pair.east.tables.services.update(|table| {
            table.set_slice("default", "api-x", row);
            true
        });
    }

    pub(crate) fn set(&self, weights: [u64; 2], protocol: Protocol) {
        let remote = Remote { link: "west".to_owned(), target: "api.default:8080".parse().unwrap() };
        let backend =
            |service: &str, weight, place| SplitBackend { service: service.to_owned(), weight, place };
        let port = SplitPort {
            port: 80,
            name: "http".to_owned(),
            protocol,
            backends: vec![
                backend("api", weights[0], Place::Local("http".to_owned())),
                backend("api-west", weights[1], Place::Link(remote)),
            ],
            matches: Vec::new(),
        };
        let route = SplitRoute {
            split: "s".to_owned(),
            apex: "api".to_owned(),
            affinity: false,
            ports: BTreeMap::from([(APEX, port)]),
        };
        let slice = PortRow {
            route: route.slice_route("default"),
            split: Some(Arc::new(route)),
            ..PortRow::default()
        };
        let tables = &self.pair.east.tables;
        tables.ports.update(|table| table.set("default", "api-split", Some(slice)));
        // The mirror's slice says that west has endpoints.
        tables.ports.update(|table| {
            let ready = PortRow {
                route: linkspan_core::api::slice::SliceRoute {
                    link: "west".to_owned(),
                    ports: BTreeMap::from([(pair::PORT, "api.default:8080".parse().unwrap())]),
                },
                ready_pods: ["gateway-1".to_owned()].into(),
                ..PortRow::default()
            };
            table.set("default", "api-west", Some(ready))
        });
    }

    /// The pair, and the listener of this cluster's pod; west's is taken out of the pair.
    pub(crate) fn take(self) -> (Pair, TcpListener, TcpListener) {
        let Pair { east, west, west_texts, client_serial, backend, east_ca, west_ca } = self.pair;
        // The pair keeps a listener of its own that nobody calls.
        let idle = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        idle.set_nonblocking(true).unwrap();
        let none = TcpListener::from_std(idle).unwrap();
        let pair = Pair { east, west, west_texts, client_serial, backend: none, east_ca, west_ca };
        (pair, self.local, backend)
    }
}
