//! The processes of an API server, and the files they share.

use super::{TRIES, access, ready};
use crate::{
    process::Process,
    program::Program,
    scratch::Scratch,
    tls::{Authority, ServerCertificate},
    tools, wait,
};
use anyhow::{Context, Result};
use rcgen::KeyPair;
use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::net::TcpStream;

const ETCD_UP: Duration = Duration::from_secs(30);
/// Issuer of service accounts' tokens.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// What the processes read.
pub(super) struct Files {
    pub(super) scratch: Scratch,
    /// The token of a member of `system:masters`.
    pub(super) admin_token: String,
    /// What service accounts' tokens are signed with.
    pub(super) account_signer: KeyPair,
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    account_key: PathBuf,
    account_public_key: PathBuf,
    tokens: PathBuf,
}

impl Files {
    pub(super) fn write(
        scratch: Scratch,
        authority: &Authority,
        certificate: &ServerCertificate,
    ) -> Result<Self> {
        let account_key = KeyPair::generate()?;
        let admin_token: String =
            KeyPair::generate()?.public_key_raw().iter().rev().take(16).map(|b| format!("{b:02x}")).collect();
        Ok(Self {
            ca: scratch.write("ca.crt", &authority.pem())?,
            certificate: scratch.write("server.crt", &certificate.certificate)?,
            key: scratch.write("server.key", &certificate.key)?,
            account_key: scratch.write("account.key", &account_key.serialize_pem())?,
            account_public_key: scratch.write("account.pub", &account_key.public_key_pem())?,
            tokens: scratch.write("tokens.csv", &format!("{admin_token},admin,admin,system:masters\n"))?,
            admin_token,
            account_signer: account_key,
            scratch,
        })
    }
}

/// Starts etcd; answers its client port.
pub(super) async fn start_etcd(name: &str, files: &Files) -> Result<(u16, Process)> {
    let mut tries = 0;
    loop {
        let [client, peer] = free_ports()?;
        let (client_url, peer_url) =
            (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let data = files.scratch.path().join("etcd");
        let program = Program::new(tools::tool("etcd")?)
            .args(["--unsafe-no-fsync", "--log-level", "warn", "--name", "one", "--data-dir"])
            .arg(&data)
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("one={peer_url}")]);
        let mut process = program.start(&format!("{name}-etcd"))?;
        let up = wait::until(ETCD_UP, async || {
            if process.running().is_ok() {
                TcpStream::connect((Ipv4Addr::LOCALHOST, client)).await?;
            }
            Ok(())
        });
        let up = up.await.context("etcd does not listen").and_then(|()| process.running());
        match retry(up, &process, &mut tries) {
            None => return Ok((client, process)),
            Some(error) => error?,
        }
        // The first try's member data names ports that are not ours.
        std::fs::remove_dir_all(&data).ok();
    }
}

/// Starts kube-apiserver and waits until it is ready; answers its port.
pub(super) async fn start_server(
    name: &str,
    files: &Files,
    etcd_port: u16,
    authority: &Authority,
) -> Result<(u16, Process)> {
    let mut tries = 0;
    loop {
        let [port] = free_ports()?;
        let kubeconfig =
            access::kubeconfig(&format!("https://127.0.0.1:{port}"), &authority.pem(), &files.admin_token)?;
        let mut process = server_program(files, etcd_port, port)?.start(&format!("{name}-apiserver"))?;
        let up = ready(access::client(&kubeconfig).await?, &mut process).await;
        match retry(up, &process, &mut tries) {
            None => return Ok((port, process)),
            Some(error) => error?,
        }
    }
}

fn server_program(files: &Files, etcd_port: u16, port: u16) -> Result<Program> {
    let flag = |flag: &str, value: &Path| format!("--{flag}={}", value.display());
    Ok(Program::new(tools::tool("kube-apiserver")?)
        .args([
            flag("cert-dir", files.scratch.path()),
            flag("tls-cert-file", &files.certificate),
            flag("tls-private-key-file", &files.key),
            flag("client-ca-file", &files.ca),
            flag("token-auth-file", &files.tokens),
            flag("service-account-key-file", &files.account_public_key),
            flag("service-account-signing-key-file", &files.account_key),
            format!("--service-account-issuer={ISSUER}"),
            format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
            format!("--secure-port={port}"),
        ])
        .args([
            "--bind-address=127.0.0.1",
            // Told to nobody, but an address must be given that is not loopback.
            "--advertise-address=192.0.2.1",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            // It would refuse pods until a controller has made their namespace's account.
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
        ]))
}

/// Starts kube-controller-manager with the named controllers.
pub(super) fn start_manager(
    name: &str,
    files: &Files,
    kubeconfig: &Path,
    controllers: &[&str],
) -> Result<Process> {
    let flag = |flag: &str, value: &Path| format!("--{flag}={}", value.display());
    Program::new(tools::tool("kube-controller-manager")?)
        .args([
            flag("kubeconfig", kubeconfig),
            flag("service-account-private-key-file", &files.account_key),
            flag("root-ca-file", &files.ca),
            format!("--controllers={}", controllers.join(",")),
            "--leader-elect=false".to_owned(),
            // Nobody asks it anything.
            "--secure-port=0".to_owned(),
        ])
        .start(&format!("{name}-controller-manager"))
}

/// `None` when it is up; an `Ok` when another try is due because another process took the port.
fn retry(up: Result<()>, process: &Process, tries: &mut u32) -> Option<Result<()>> {
    let error = up.err()?;
    *tries += 1;
    match process.log().contains("address already in use") && *tries < TRIES {
        true => Some(Ok(())),
        false => Some(Err(error.context(format!("its log ends with:\n{}", process.tail())))),
    }
}

/// Ports of loopback that are free now, chosen by the kernel.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // All are held until all are chosen, so that they differ.
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port of loopback is free")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}
