//! Load for the clusters' tests; one static program, in an image of its own.
//!
//! * `test-load serve <address>`: a server that counts whom it answered.
//! * `test-load keep-alive|per-request|hold <name> <host:port> <requests a second> <workers>`: a client.

use anyhow::{Context, Result, bail};
use linkspan_core::process::clock::Clock;
use linkspan_tests::load::{
    client::{self, Mode, Plan},
    server,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", address] => server::run(address.parse().context("no address to listen on")?).await,
        [mode, name, target, rate, workers] => {
            let mode = match mode {
                "keep-alive" => Mode::KeepAlive,
                "per-request" => Mode::PerRequest,
                "hold" => Mode::Hold,
                _ => bail!("{mode:?} is not keep-alive, per-request or hold"),
            };
            let (name, target) = (name.to_owned(), target.to_owned());
            let (rate, workers) =
                (rate.parse().context("no rate")?, workers.parse().context("no number of workers")?);
            client::run(Plan { name, target, mode, rate, workers }, Clock::system()).await
        }
        _ => bail!(
            "usage: test-load serve <address> | <mode> <name> <host:port> <requests a second> <workers>"
        ),
    }
}
