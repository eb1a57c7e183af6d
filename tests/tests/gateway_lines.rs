//! What gateways do when the line between them dies without a word, and when the other one is of the version before.

use anyhow::{Context, Result, bail, ensure};
use linkspan_tests::{
    Need, Program, eventually, have,
    needs::skip,
    netns::{Namespace, Network},
    standalone::{Side, Standalone, start_pair},
    tools,
};
use std::{fs, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

const SOON: Duration = Duration::from_secs(60);
/// Within this a line that died is noticed; promised is half of it.
const NOTICED: Duration = Duration::from_secs(10);

/// Two gateways, and what pretends to be the pods behind them: the test itself, which both can reach.
struct Line {
    sides: [Standalone; 2],
    places: [Namespace; 2],
    backend: TcpListener,
    _network: Network,
}

impl Line {
    async fn new(gateways: [Program; 2]) -> Result<Self> {
        let network = Network::new()?;
        let places = [network.namespace()?, network.namespace()?];
        let listener = TcpListener::bind((network.host_address(), 0)).await?;
        let backend = listener.local_addr()?;
        let [east, west] = gateways;
        let sides = start_pair(
            &Side { place: &places[0], gateway: east, backend },
            &Side { place: &places[1], gateway: west, backend },
        )?;
        let mut line = Self { sides, places, backend: listener, _network: network };
        for from in [0, 1] {
            eventually(SOON, "a flow to be carried", async || {
                line.sides[from].process.running()?;
                line.flow(from).await.map(|_| ())
            })
            .await;
        }
        Ok(line)
    }

    /// A flow from side `from` to the other one: the client's end, and the server's, over which a byte has come.
    async fn flow(&self, from: usize) -> Result<(TcpStream, TcpStream)> {
        let connected = async {
            let mut client = TcpStream::connect(self.sides[from].egress).await?;
            client.write_all(b"x").await?;
            let mut byte = [0; 1];
            let (mut server, _) = self.backend.accept().await?;
            server.read_exact(&mut byte).await?;
            anyhow::Ok((client, server))
        };
        timeout(Duration::from_secs(5), connected).await.context("no flow within 5 s")?
    }
}

/// Waits until `tcp` is broken, whatever is still to be read from it.
async fn broken(name: &str, tcp: &TcpStream, began: Instant) -> Result<()> {
    timeout(NOTICED, tcp.ready(Interest::ERROR)).await.with_context(|| format!("{name} was not told"))??;
    println!("{name} was told after {:?}", began.elapsed());
    Ok(())
}

/// Sends to `tcp` until nobody takes anything any more.
async fn fill(tcp: &mut TcpStream) {
    let bytes = vec![7; 64 * 1024];
    while let Ok(Ok(())) = timeout(Duration::from_millis(1500), tcp.write_all(&bytes)).await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_dies_without_a_word_is_noticed_on_both_sides() {
    if !have(&[Need::Root, Need::Tool("ip"), Need::Tool("nsenter")]) {
        return;
    }
    let gateway = Program::ours("linkspan-gateway").unwrap();
    let line = Line::new([gateway.clone(), gateway]).await.unwrap();
    let idle = line.flow(0).await.unwrap();
    let mut up = line.flow(0).await.unwrap();
    let mut unread = line.flow(0).await.unwrap();
    fill(&mut unread.1).await;
    line.places[1].unplug().unwrap();
    let began = Instant::now();
    up.0.write_all(b"nobody will ever acknowledge this").await.unwrap();
    tokio::try_join!(
        broken("a caller that waits", &idle.0, began),
        broken("a caller that sends", &up.0, began),
        broken("a caller that reads nothing", &unread.0, began),
    )
    .unwrap();
    // Nothing hangs afterwards either.
    let mut late = TcpStream::connect(line.sides[0].egress).await.unwrap();
    let began = Instant::now();
    let end = timeout(NOTICED, late.read(&mut [0; 1])).await.unwrap();
    println!("a late caller was told after {:?}: {end:?}", began.elapsed());
    assert!(end.is_err(), "{end:?}");

    line.places[1].plug().unwrap();
    eventually(SOON, "flows again", async || line.flow(0).await.map(|_| ())).await;
    // Now it is the caller's machine that is gone.
    let (_client, server) = line.flow(0).await.unwrap();
    let mut sending = line.flow(0).await.unwrap();
    line.places[0].unplug().unwrap();
    let began = Instant::now();
    sending.1.write_all(b"nobody will ever acknowledge this").await.unwrap();
    tokio::try_join!(
        broken("a pod that waits", &server, began),
        broken("a pod that sends", &sending.1, began),
    )
    .unwrap();
}

/// The gateway of the version before, built by the test bed; otherwise why there is none.
fn previous() -> Result<Program> {
    let file = tools::repository().join("tests/testbed/previous-version");
    let text = fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let commit = text.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
    let short = commit.get(..12).with_context(|| format!("{} names no commit", file.display()))?;
    let gateway = tools::cache().join(format!("previous-{short}/programs/linkspan-gateway"));
    if !gateway.is_file() {
        bail!("{} does not exist: run `tests/testbed/previous.sh programs`", gateway.display());
    }
    Ok(Program::new(gateway))
}

/// Sends and receives `count` bytes over a flow, and both ends.
async fn exchange(client: SocketAddr, backend: &TcpListener, count: usize) -> Result<()> {
    let echo = async {
        let (mut server, _) = backend.accept().await?;
        let (mut read, mut write) = server.split();
        tokio::io::copy(&mut read, &mut write).await?;
        write.shutdown().await?;
        anyhow::Ok(())
    };
    let ask = async {
        let mut client = TcpStream::connect(client).await?;
        let sent: Vec<u8> = (0..count).map(|i| (i % 251) as u8).collect();
        let (mut read, mut write) = client.split();
        let mut found = Vec::new();
        let (sending, receiving) = tokio::join!(
            async {
                write.write_all(&sent).await?;
                write.shutdown().await
            },
            read.read_to_end(&mut found)
        );
        sending?;
        receiving?;
        ensure!(found == sent, "{} bytes came back of {count}", found.len());
        Ok(())
    };
    timeout(SOON, async { tokio::try_join!(echo, ask) }).await.context("no answer")??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_work_with_those_of_the_version_before() {
    if !have(&[Need::Root, Need::Tool("ip"), Need::Tool("nsenter")]) {
        return;
    }
    let old = match previous() {
        Ok(old) => old,
        Err(why) => return skip("gateways_work_with_those_of_the_version_before", &format!("{why:#}")),
    };
    let line = Line::new([old, Program::ours("linkspan-gateway").unwrap()]).await.unwrap();
    for side in &line.sides {
        for count in [0, 1, 100_000, 5_000_000] {
            exchange(side.egress, &line.backend, count).await.unwrap();
        }
        // A reset goes through as well, and the connection is good for the next flow.
        for _ in 0..10 {
            let from = usize::from(side.egress == line.sides[1].egress);
            let (client, server) = line.flow(from).await.unwrap();
            client.set_zero_linger().unwrap();
            drop(client);
            timeout(SOON, server.ready(Interest::ERROR)).await.expect("the reset did not arrive").unwrap();
        }
    }
    // One that rests longer than any silence is left alone.
    for from in [0, 1] {
        let (mut client, mut server) = line.flow(from).await.unwrap();
        let rest = Duration::from_secs(7);
        let sent = tokio::spawn(async move {
            server.write_all(&vec![3; 32 << 20]).await?;
            server.shutdown().await
        });
        assert!(timeout(rest, client.ready(Interest::ERROR)).await.is_err(), "it was ended while it rested");
        let mut bytes = Vec::new();
        timeout(SOON, client.read_to_end(&mut bytes)).await.unwrap().unwrap();
        sent.await.unwrap().unwrap();
        assert_eq!(bytes.len(), 32 << 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_lets_flows_end_and_a_second_one_does_not() {
    if !have(&[Need::Root, Need::Tool("ip"), Need::Tool("nsenter")]) {
        return;
    }
    let gateway = Program::ours("linkspan-gateway").unwrap();
    let mut line = Line::new([gateway.clone(), gateway]).await.unwrap();
    let (mut client, mut server) = line.flow(0).await.unwrap();
    line.sides[0].process.signal("TERM").unwrap();
    let closed = async || match TcpStream::connect(line.sides[0].egress).await {
        Ok(_) => bail!("it still accepts"),
        Err(_) => Ok(()),
    };
    eventually(SOON, "no new flow to be accepted", closed).await;
    client.write_all(b"still here").await.unwrap();
    let mut bytes = [0; 10];
    timeout(SOON, server.read_exact(&mut bytes)).await.unwrap().unwrap();
    let began = Instant::now();
    let status = line.sides[0].process.stop(NOTICED).unwrap();
    assert_eq!(status.code(), Some(128 + 15), "{status}");
    println!("ended {:?} after the second signal", began.elapsed());
    timeout(SOON, client.ready(Interest::ERROR)).await.unwrap().unwrap();
    // West is left alone with nothing and ends in order.
    drop((client, server));
    assert!(line.sides[1].process.stop(SOON).unwrap().success());
}
