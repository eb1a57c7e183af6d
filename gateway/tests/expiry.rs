//! Certificates that end while connections stand: flows end with them, and what was renewed in time goes on.
#![allow(clippy::unwrap_used, reason = "tests fail by panics")]

#[path = "support/pair.rs"]
mod pair;
#[path = "support/mod.rs"]
mod support;
#[path = "support/tcp.rs"]
mod tcp;

use linkspan_core::{api::reason::Reason, process::clock::Clock};
use linkspan_gateway::mtls::credentials::{Credentials, Texts};
use pair::{Gateway, PORT, Pair, Wishes, texts};
use std::sync::Arc;
use support::certs::FOREVER;
use tcp::{pass_byte, soon, until_reset};

/// How long the certificates live that end: enough to bring a pair up on a busy machine.
const LIFE: i64 = 6;

/// Whose certificate ends.
#[derive(Clone, Copy, Debug)]
enum Whose {
    Caller,
    Called,
}

/// A pair in which one certificate ends, and the last second in which it is valid.
async fn start(whose: Whose) -> (Pair, i64) {
    let last = Clock::system().now().as_second() + LIFE;
    let (client, server) = match whose {
        Whose::Caller => (last, FOREVER),
        Whose::Called => (FOREVER, last),
    };
    (Pair::start_as(Wishes { client, server, ..Wishes::default() }).await, last)
}

async fn ends_live_flows(whose: Whose) {
    let (pair, last) = start(whose).await;
    let (mut client, mut server) = soon(pair.flow()).await;
    pass_byte(&mut client, &mut server).await;
    pass_byte(&mut server, &mut client).await;
    until_reset(&mut client).await;
    until_reset(&mut server).await;
    let late = Clock::system().now().as_millisecond() - (last + 1) * 1000;
    assert!((-50..2000).contains(&late), "{whose:?}: {late} ms after the certificate's end");
    let health = pair.east.until(|health| health.alive == Some(false)).await;
    assert_eq!(health.reason, Some(Reason::TlsExpired), "{whose:?}: {health:?}");
    until_reset(&mut soon(pair.east.connect(PORT)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_callers_certificate_ends_its_flows() {
    ends_live_flows(Whose::Caller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_called_gateways_certificate_ends_flows_to_it() {
    ends_live_flows(Whose::Called).await;
}

fn renew(gateway: &Gateway, texts: &Texts) {
    gateway.tables.credentials.send_replace(Arc::new(Credentials::read(texts)));
}

/// New flows come without a pause from long before the end of a certificate, which was renewed, until after it.
async fn is_no_news_when_renewed(whose: Whose) {
    let (pair, last) = start(whose).await;
    let (mut old_client, mut old_server) = soon(pair.flow()).await;
    pass_byte(&mut old_client, &mut old_server).await;
    let (east, west) = (&pair.east_ca, &pair.west_ca);
    match whose {
        Whose::Caller => renew(&pair.east, &texts(east, west, west.client("linkspan", "east", "uid-1"))),
        Whose::Called => renew(&pair.west, &texts(west, east, east.client("linkspan", "west", "x"))),
    }
    let mut flows = 0;
    while Clock::system().now().as_second() <= last + 1 {
        let (mut client, mut server) = soon(pair.flow()).await;
        pass_byte(&mut client, &mut server).await;
        pass_byte(&mut server, &mut client).await;
        flows += 1;
    }
    println!("{whose:?}: {flows} flows");
    // What stood on the former certificate does not outlive it.
    until_reset(&mut old_client).await;
    until_reset(&mut old_server).await;
    assert_eq!(pair.east.board.link("west").unwrap().alive, Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_certificate_that_is_renewed_in_time_is_missed_by_no_new_flow() {
    is_no_news_when_renewed(Whose::Caller).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_called_gateways_certificate_that_is_renewed_in_time_is_missed_by_no_new_flow() {
    is_no_news_when_renewed(Whose::Called).await;
}
