//! A day in the life of a link by a clock that the test sets: issuer and keepers of credentials as they run in the
//! controllers, against two real API servers.

use crate::support::{SOON, cluster, link_output, secret};
use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use linkspan_core::{
    api::{
        credentials::{GATEWAY_TLS_SECRET, SERVER_CERT},
        identity::TrustDomain,
        labels::{NAMESPACE, REMOTE_ACCESS_ACCOUNT},
    },
    process::{
        clock::Clock,
        shutdown::{self, Shutdown},
    },
};
use linkspan_mirror_controller::{
    credentials::{self, AccessBoard, CredentialsContext, LinkAccess},
    issuer::{self, Exchange, IssuerContext},
};
use linkspan_tests::{Installation, Need, eventually, have, wait::throughout};
use std::time::Duration;
use tokio::{sync::watch, task::JoinSet};
use x509_parser::pem::parse_x509_pem;

/// What must not happen is watched for this long.
const A_WHILE: Duration = Duration::from_secs(2);

/// One cluster's part of trust, running.
struct Side {
    leader: watch::Sender<bool>,
    board: AccessBoard,
    client: Client,
    parts: JoinSet<Result<()>>,
}

impl Side {
    async fn start(of: &Installation, clock: &Clock, shutdown: &Shutdown) -> Self {
        let client = of.server.admin().await.unwrap();
        let trust_domain: TrustDomain = issuer::trust_domain(&client).await.unwrap();
        let (leader, exchange, board) =
            (watch::Sender::new(true), Exchange::default(), AccessBoard::default());
        let mut parts = JoinSet::new();
        parts.spawn(issuer::run(IssuerContext {
            client: client.clone(),
            namespace: NAMESPACE.into(),
            ca_dir: None,
            trust_domain,
            leader: leader.subscribe(),
            clock: clock.clone(),
            shutdown: shutdown.clone(),
            exchange: exchange.clone(),
        }));
        parts.spawn(credentials::run(CredentialsContext {
            client: client.clone(),
            namespace: NAMESPACE.into(),
            leader: leader.subscribe(),
            clock: clock.clone(),
            shutdown: shutdown.clone(),
            exchange,
            board: board.clone(),
        }));
        Self { leader, board, client, parts }
    }

    /// Time has passed: everything is looked at again, as it is every five minutes anyway.
    fn look(&self) {
        self.leader.send_replace(true);
    }

    /// When the certificate under `key` of the gateways' Secret ends, and its serial number.
    async fn certificate(&self, key: &str) -> Result<(Timestamp, String)> {
        let pem = secret(&self.client, GATEWAY_TLS_SECRET).await?.remove(key).context("none yet")?;
        let (_, pem) = parse_x509_pem(pem.as_bytes())?;
        let certificate = pem.parse_x509()?;
        let end = Timestamp::from_second(certificate.validity().not_after.timestamp())?;
        Ok((end, certificate.raw_serial_as_string()))
    }

    /// Waits until what is known of the link is `fit`.
    async fn knows(&self, what: &str, fit: impl Fn(&LinkAccess) -> bool) -> LinkAccess {
        eventually(SOON, what, async || {
            let access = self.board.subscribe("west").borrow().clone();
            ensure!(fit(&access), "{:?}, until {:?}", access.condition, access.certificate_expires_at);
            Ok(access)
        })
        .await
    }
}

#[tokio::test]
async fn certificates_are_renewed_after_two_thirds_of_their_day_and_failures_are_told() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager")]) {
        return;
    }
    let (east, west) = tokio::join!(cluster("east"), cluster("west"));
    let begun = Clock::system().now();
    let (clock, (trigger, shutdown)) = (Clock::manual(begun), shutdown::manual());
    let mut in_west = Side::start(&west, &clock, &shutdown).await;
    let mut in_east = Side::start(&east, &clock, &shutdown).await;
    // A token that does not end: API servers take the time from their own clock.
    east.server.apply(&link_output(&west, &["--long-lived-token"]).await).await.unwrap();
    let after = |hours: i64| {
        clock.set(begun + SignedDuration::from_hours(hours));
        in_west.look();
        in_east.look();
    };
    let whole = |at: Timestamp| Timestamp::from_second(at.as_second()).unwrap();
    let ends_at = |hours: i64| Some(whole(begun + SignedDuration::from_hours(hours)));
    in_east.knows("a certificate for a day", |a| a.certificate_expires_at == ends_at(24)).await;
    let first = in_east.certificate("client-west.crt").await.unwrap();
    let server = in_west.certificate(SERVER_CERT).await.unwrap();
    assert_eq!((Some(first.0), Some(server.0)), (ends_at(24), ends_at(24)));

    // They live for a day and the five minutes before it. Fifteen hours: not yet. Seventeen: both ends have another one,
    // and nothing was started anew.
    after(15);
    throughout(A_WHILE, "the certificates stay", async || {
        ensure!(in_east.certificate("client-west.crt").await? == first, "a new client certificate");
        ensure!(in_west.certificate(SERVER_CERT).await? == server, "a new server certificate");
        Ok(())
    })
    .await;
    after(17);
    let access = in_east.knows("a renewed certificate", |a| a.certificate_expires_at == ends_at(41)).await;
    assert_eq!((access.condition.status.as_str(), access.certificate_failures), ("True", 0));
    eventually(SOON, "renewed certificates in both clusters", async || {
        let (client, now) =
            (in_east.certificate("client-west.crt").await?, in_west.certificate(SERVER_CERT).await?);
        ensure!(Some(client.0) == ends_at(41) && client.1 != first.1, "{client:?}");
        ensure!(Some(now.0) == ends_at(41) && now.1 != server.1, "{now:?}");
        Ok(())
    })
    .await;

    // Renewal that fails is told while the present certificate is good, and again when it is not.
    let label = async |text: &str| {
        let label = ["-n", NAMESPACE, "label", "--overwrite", "serviceaccount", REMOTE_ACCESS_ACCOUNT, text];
        west.server.kubectl(label).unwrap().run(SOON).await.unwrap().success().unwrap();
    };
    label("linkspan.dev/link-account-").await;
    after(34);
    let access = in_east.knows("the failed renewal", |a| a.condition.reason == "RenewalFailing").await;
    assert_eq!(access.condition.status, "True", "it still works");
    assert!(access.condition.message.contains("does not carry the label"), "{:?}", access.condition);
    assert!(access.condition.message.contains("the present certificate ends at"), "{:?}", access.condition);
    assert!(access.certificate_failures >= 1);
    after(42);
    let access = in_east.knows("the end of the certificate", |a| a.condition.status == "False").await;
    assert_eq!(access.condition.reason, "CertificateDenied");
    assert_eq!(access.certificate_expires_at, None);

    // It is tried for ever: what mends it is enough.
    label("linkspan.dev/link-account=true").await;
    in_east.knows("a new certificate", |a| a.certificate_expires_at == ends_at(66)).await;

    for side in [&mut in_west, &mut in_east] {
        assert!(side.parts.try_join_next().is_none(), "a part has ended");
    }
    trigger.start();
    for side in [in_west, in_east] {
        for ended in side.parts.join_all().await {
            ended.unwrap();
        }
    }
}
