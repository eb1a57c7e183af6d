//! A real Kubernetes API: etcd and kube-apiserver as plain processes, without any node.
//!
//! It has real RBAC, tokens, watches, conflicts, certificate signing requests and server-side apply. Nothing else of
//! a cluster runs: a test plays the kubelet and, unless it asks for them by [`Options::controllers`], the
//! controllers too. So a deleted namespace stays, no slices are made for Services and no owner takes its objects
//! along.

mod access;
mod parts;

pub use access::claims;

use crate::{faults::Faults, process::Process, program::Program, scratch::Scratch, tls::Authority, wait};
use anyhow::{Context, Result, bail};
use kube::Client;
use linkspan_core::api::crds;
use serde_json::json;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use tokio::time::Instant;

/// Time in which an API server is ready, with room for a busy machine.
const READY: Duration = Duration::from_secs(60);
/// How often a start is tried again when another process took a port that was free.
const TRIES: u32 = 4;

/// The controllers of kube-controller-manager that make namespaces go away, owners take their objects along, Services
/// get their slices, and every namespace have its account and the CA.
pub const CONTROLLERS: &[&str] = &[
    "namespace-controller",
    "garbage-collector-controller",
    "endpointslice-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
];

/// What an API server is started with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The controllers that kube-controller-manager runs; none: it is not started.
    pub controllers: &'static [&'static str],
    /// The address that clients are given, e.g. [`crate::netns::Network::host_address`].
    pub address: IpAddr,
}

impl Default for Options {
    fn default() -> Self {
        Self { controllers: &[], address: Ipv4Addr::LOCALHOST.into() }
    }
}

/// A running API server; it ends on drop.
///
/// Clients made for what is under test go through [`ApiServer::faults`]; [`ApiServer::admin`] goes straight to the
/// server, so that a test sees clearly while it disturbs.
pub struct ApiServer {
    name: String,
    // Dropped in this order: who needs the next goes before it.
    manager: Option<Process>,
    server: Process,
    etcd: Process,
    files: parts::Files,
    etcd_port: u16,
    port: u16,
    faults: Faults,
    authority: Authority,
    ready_after: Duration,
}

impl ApiServer {
    /// Starts one and waits until it is ready. `name` is for logs.
    ///
    /// # Errors
    /// When a tool is missing or a part does not come up; the text has the end of its log.
    pub async fn start(name: &str) -> Result<Self> {
        Self::start_with(name, Options::default()).await
    }

    /// [`ApiServer::start`] with more than the least.
    ///
    /// # Errors
    /// As [`ApiServer::start`].
    pub async fn start_with(name: &str, options: Options) -> Result<Self> {
        let begun = Instant::now();
        let scratch = Scratch::new(name)?;
        let authority = Authority::new(&format!("{name} API server's CA"))?;
        let certificate = authority.server(&[Ipv4Addr::LOCALHOST.into(), options.address])?;
        let files = parts::Files::write(scratch, &authority, &certificate)?;
        let (etcd_port, etcd) = parts::start_etcd(name, &files).await?;
        let (port, server) = parts::start_server(name, &files, etcd_port, &authority).await?;
        let faults =
            Faults::start(options.address, &authority, &certificate, (Ipv4Addr::LOCALHOST, port).into())?;
        let mut this = Self {
            name: name.to_owned(),
            files,
            etcd,
            server,
            manager: None,
            etcd_port,
            port,
            faults,
            authority,
            ready_after: begun.elapsed(),
        };
        if !options.controllers.is_empty() {
            let kubeconfig = this.write_kubeconfig("manager", &this.direct_kubeconfig()?)?;
            this.manager = Some(parts::start_manager(name, &this.files, &kubeconfig, options.controllers)?);
        }
        Ok(this)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long it took from the first process to a ready API.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Process ids of its parts.
    pub fn pids(&self) -> Vec<u32> {
        [Some(&self.etcd), Some(&self.server), self.manager.as_ref()]
            .into_iter()
            .flatten()
            .map(Process::pid)
            .collect()
    }

    /// The way that clients take, to be disturbed.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Where clients find it: `https://<address>:<port>`.
    pub fn url(&self) -> String {
        format!("https://{}", self.faults.bytes().address())
    }

    /// Where kube-apiserver itself listens, past all faults. It speaks HTTP/2 there; on the way past the faults clients
    /// find HTTP/1.1 only.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The CA of its certificate (PEM).
    pub fn ca(&self) -> String {
        self.authority.pem()
    }

    /// Kills kube-apiserver without warning; clients are refused until [`ApiServer::restart`].
    ///
    /// # Errors
    /// When it had ended before.
    pub async fn kill(&mut self) -> Result<()> {
        self.server.running()?;
        self.server.kill()?;
        self.faults.bytes().refuse().await
    }

    /// Starts kube-apiserver again after [`ApiServer::kill`]: same data, same address for clients.
    ///
    /// # Errors
    /// As [`ApiServer::start`].
    pub async fn restart(&mut self) -> Result<()> {
        if self.server.running().is_ok() {
            bail!("{} runs: kill it before you restart it", self.name);
        }
        let started = parts::start_server(&self.name, &self.files, self.etcd_port, &self.authority).await?;
        (self.port, self.server) = started;
        self.faults.lead_to(self.address());
        self.faults.bytes().accept().await
    }

    /// `kubectl <args>` with all rights, past all faults; not yet run.
    ///
    /// # Errors
    /// When its kubeconfig cannot be written.
    pub fn kubectl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<Program> {
        let kubeconfig = self.write_kubeconfig("kubectl", &self.direct_kubeconfig()?)?;
        let cache = self.files.scratch.path().join("kubectl-cache");
        Ok(Program::new("kubectl")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--cache-dir")
            .arg(cache)
            .args(args))
    }

    /// Applies manifests (YAML or JSON) with all rights, past all faults. Definitions that come with objects of their
    /// kind must have been applied, and be served, before.
    ///
    /// # Errors
    /// When the server refuses one.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        let kubectl = self.kubectl(["apply", "--server-side", "--force-conflicts", "-f", "-"])?;
        kubectl.stdin(manifests).run(READY).await?.success()?;
        Ok(())
    }

    /// Applies the definitions of our resources and waits until they are served.
    ///
    /// # Errors
    /// When the server refuses one.
    pub async fn apply_definitions(&self) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": crds::definitions()});
        self.apply(&list.to_string()).await?;
        self.definitions_served().await
    }

    /// Waits until all definitions that were applied are served.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn definitions_served(&self) -> Result<()> {
        let wait =
            ["wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions", "--all"];
        self.kubectl(wait)?.run(READY * 2).await?.success()?;
        Ok(())
    }

    /// Writes a kubeconfig to a file that lives as long as the server.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_kubeconfig(&self, name: &str, kubeconfig: &str) -> Result<PathBuf> {
        self.files.scratch.write(&format!("{name}.kubeconfig"), kubeconfig)
    }
}

/// Waits until the server behind `client` is ready and has made `kube-system`.
async fn ready(client: Client, server: &mut Process) -> Result<()> {
    let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(client.clone());
    let ended = std::cell::Cell::new(false);
    let up = wait::until(READY, async || {
        if let Err(error) = server.running() {
            // No later look can be better; the caller reads the cause.
            ended.set(true);
            eprintln!("{error:#}");
            return Ok(());
        }
        client.request_text(http::Request::get("/readyz").body(Vec::new())?).await?;
        namespaces.get("kube-system").await?;
        Ok(())
    });
    up.await.context("kube-apiserver is not ready")?;
    if ended.get() {
        bail!("kube-apiserver has ended");
    }
    Ok(())
}
