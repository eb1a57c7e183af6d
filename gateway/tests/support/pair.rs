//! Two gateways in this process, over real sockets: `east` calls, `west` is called.
#![allow(dead_code, reason = "each test program uses a part of this")]

use crate::support::certs::{Authority, FOREVER, Leaf};
use linkspan_core::{
    api::{
        credentials::{CLIENT_KEY, DENIED_SERIALS, OWN_BUNDLE, SERVER_CERT, SERVER_KEY},
        gateway_report::LinkHealth,
        link::{LinkSettings, ProbeSettings},
        slice::SliceRoute,
    },
    process::{
        clock::Clock,
        readiness::Readiness,
        shutdown::{self, Trigger},
    },
};
use linkspan_gateway::{
    app::{App, Settings},
    drain::Drain,
    egress::port_table::SliceRow as PortRow,
    ingress::{
        limits::Limits,
        service_table::{Endpoint, ServicePort, ServiceRow, SliceRow},
    },
    mtls::credentials::{Credentials, Texts},
    probe::board::Board,
    source::Tables,
    tunnel::link_table::LinkRow,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{Instant, sleep},
};

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The port of east that leads to west's exported Service.
pub(crate) const PORT: u16 = 10_007;
/// The one that leads to a Service west does not export.
pub(crate) const HIDDEN_PORT: u16 = 10_008;

static NEXT: AtomicU32 = AtomicU32::new(1);

/// An address of this machine that no other test uses.
fn own_address() -> IpAddr {
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let [a, b] = (std::process::id() as u16).to_be_bytes();
    IpAddr::from([127, a | 1, b, n as u8])
}

/// One running gateway.
pub(crate) struct Gateway {
    pub(crate) tables: Tables,
    pub(crate) board: Board,
    pub(crate) tunnel: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) egress: IpAddr,
    pub(crate) stop: Trigger,
    pub(crate) task: JoinHandle<anyhow::Result<()>>,
}

impl Gateway {
    pub(crate) async fn start(texts: &Texts) -> Self {
        Self::start_within(texts, Limits::default(), Wishes::default().flows).await
    }

    /// Starts one whose callers may use so much, and whose flows have `flows` to end when it leaves.
    pub(crate) async fn start_within(texts: &Texts, limits: Limits, flows: Duration) -> Self {
        let tables = Tables::empty();
        tables.credentials.send_replace(Arc::new(Credentials::read(texts)));
        let egress = own_address();
        let any = SocketAddr::new(egress, 0);
        let drain = Drain { linger: Duration::ZERO, flows, total: Duration::from_secs(30) };
        let settings = Settings {
            namespace: "linkspan".to_owned(),
            pod_name: "gateway-1".to_owned(),
            listen: any,
            egress_addr: egress,
            admin_addr: any,
            limits,
            drain,
            log_level: None,
        };
        let clock = Clock::system();
        let app = App::bind(settings, tables.clone(), Readiness::default(), clock).await.unwrap();
        let (board, tunnel, admin) =
            (app.board.clone(), app.tunnel_address().unwrap(), app.admin_address().unwrap());
        let (stop, stopped) = shutdown::manual();
        let task = tokio::spawn(app.run(stopped));
        Self { tables, board, tunnel, admin, egress, stop, task }
    }

    pub(crate) fn set_account(&self, uid: Option<&str>) {
        self.tables.accounts.update(|accounts| match uid {
            Some(uid) => accounts.set("east", uid),
            None => accounts.remove("east"),
        });
    }

    pub(crate) fn set_export(&self, exported: bool) {
        let ports = vec![ServicePort { name: String::new(), port: 8080 }];
        let row = ServiceRow { ports, ..ServiceRow::default() };
        self.tables
            .update_exports(|services| services.set_service("default", "api", exported.then_some(row)));
    }

    pub(crate) fn set_endpoints(&self, endpoints: &[SocketAddr]) {
        self.tables.services.update(|services| {
            services.reset_slices(endpoints.iter().map(|address| {
                let endpoint = Endpoint {
                    ip: address.ip(),
                    hostname: None,
                    ready: true,
                    serving_while_terminating: false,
                    for_zones: Vec::new(),
                };
                let ports = vec![(String::new(), address.port())];
                let (service, endpoints) = ("api".to_owned(), vec![endpoint]);
                let row = SliceRow { service, ports, endpoints, ..SliceRow::default() };
                (("default".to_owned(), format!("api-{address}")), row)
            }));
            true
        });
    }

    pub(crate) fn set_link(&self, to: SocketAddr, identity: &str) {
        let settings = LinkSettings {
            gateway_hosts: vec![to.ip().to_string()],
            gateway_port: to.port(),
            gateway_identity: identity.parse().unwrap(),
            probe: ProbeSettings { period: Duration::from_millis(200), ..ProbeSettings::default() },
        };
        self.tables.links.update(|links| links.set("west", Ok(LinkRow::new(settings, &[]))));
    }

    pub(crate) fn set_ports(&self) {
        let target = |text: &str| text.parse().unwrap();
        let ports = BTreeMap::from([
            (PORT, target("api.default:8080")),
            (HIDDEN_PORT, target("hidden.default:8080")),
        ]);
        let route = SliceRoute { link: "west".to_owned(), ports };
        let row = PortRow { route, ..PortRow::default() };
        self.tables.ports.update(|table| table.set("default", "api-west", Some(row)));
    }

    /// Waits until the link's health is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&LinkHealth) -> bool) -> LinkHealth {
        let began = Instant::now();
        loop {
            let health = self.board.link("west").unwrap_or_default();
            if wanted(&health) {
                return health;
            }
            assert!(began.elapsed() < DEADLINE, "last seen: {health:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Connects to one of the ports, which may still be about to be bound.
    pub(crate) async fn connect(&self, port: u16) -> TcpStream {
        let began = Instant::now();
        loop {
            match TcpStream::connect((self.egress, port)).await {
                Ok(tcp) => return tcp,
                Err(e) => assert!(began.elapsed() < DEADLINE, "{e}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(crate) const WEST: &str = "spiffe://west.linkspan/ns/linkspan/sa/linkspan-gateway";

/// Key material of a gateway that may call west.
pub(crate) fn texts(own: &Authority, west: &Authority, client: Leaf) -> Texts {
    texts_until(own, west, client, FOREVER)
}

/// The same, of one whose own certificate is valid until `ends` seconds after 1970.
pub(crate) fn texts_until(own: &Authority, west: &Authority, client: Leaf, ends: i64) -> Texts {
    let server = own.gateway_until("linkspan", ends);
    Texts {
        secret: Some(BTreeMap::from([
            (SERVER_CERT.to_owned(), server.cert_pem.into_bytes()),
            (SERVER_KEY.to_owned(), server.key_pem.into_bytes()),
            ("client-west.crt".to_owned(), client.cert_pem.into_bytes()),
            (CLIENT_KEY.to_owned(), client.key_pem.into_bytes()),
        ])),
        trust: Some(BTreeMap::from([
            (OWN_BUNDLE.to_owned(), own.pem()),
            ("peer-west.crt".to_owned(), west.pem()),
            (DENIED_SERIALS.to_owned(), String::new()),
        ])),
    }
}

/// Both gateways, and the backend's listener.
pub(crate) struct Pair {
    pub(crate) east_ca: Authority,
    pub(crate) west_ca: Authority,
    pub(crate) east: Gateway,
    pub(crate) west: Gateway,
    pub(crate) west_texts: Texts,
    pub(crate) client_serial: String,
    pub(crate) backend: TcpListener,
}

/// What is special about a pair.
#[derive(Clone, Copy)]
pub(crate) struct Wishes {
    /// What west lets callers use.
    pub(crate) limits: Limits,
    /// Until when the calling side's certificate is valid, in seconds after 1970.
    pub(crate) client: i64,
    /// Until when the called side's is.
    pub(crate) server: i64,
    /// Time that west's flows have when it leaves.
    pub(crate) flows: Duration,
}

impl Default for Wishes {
    fn default() -> Self {
        let (client, server) = (FOREVER, FOREVER);
        Self { limits: Limits::default(), client, server, flows: Duration::from_secs(20) }
    }
}

impl Pair {
    pub(crate) async fn start() -> Self {
        Self::start_as(Wishes::default()).await
    }

    pub(crate) async fn start_as(wishes: Wishes) -> Self {
        let Wishes { limits, client, server, flows } = wishes;
        let (east_ca, west_ca) = (Authority::new("east"), Authority::new("west"));
        let client = west_ca.client_until("linkspan", "east", "uid-1", client);
        let client_serial = client.serial.clone();
        // West calls nobody; what it would call with does not matter.
        let west_texts = texts_until(&west_ca, &east_ca, east_ca.client("linkspan", "west", "x"), server);
        let west = Gateway::start_within(&west_texts, limits, flows).await;
        let east = Gateway::start(&texts(&east_ca, &west_ca, client)).await;
        let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
        west.set_account(Some("uid-1"));
        west.set_export(true);
        west.set_endpoints(&[backend.local_addr().unwrap()]);
        east.set_link(west.tunnel, WEST);
        east.set_ports();
        east.until(|health| health.alive == Some(true)).await;
        Self { east_ca, west_ca, east, west, west_texts, client_serial, backend }
    }

    /// A connection through both gateways, and its other end.
    pub(crate) async fn flow(&self) -> (TcpStream, TcpStream) {
        let client = self.east.connect(PORT).await;
        let (server, _) = self.backend.accept().await.unwrap();
        (client, server)
    }
}
