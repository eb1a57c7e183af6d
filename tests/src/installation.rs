//! Linkspan on an [`ApiServer`]: the objects that `link-cli install` prints, and our executables as processes that
//! sign in with the very accounts and rights that pods would have.
//!
//! No kubelet runs: the Deployments stay without pods, and [`Installation::start_gateway`] says where a gateway is.

use crate::{
    ApiServer, Options, Process, Program, api_server::CONTROLLERS, netns::Namespace, program::Output,
};
use anyhow::{Context, Result};
use linkspan_core::api::labels::{
    ADMIN_PORT, CONTROLLER, GATEWAY, GATEWAY_PORT, GATEWAY_PORT_NAME, NAMESPACE, SLICE_MANAGED_BY,
    SLICE_SERVICE_NAME,
};
use serde_json::{Value, json};
use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

/// Time one command of link-cli may take; `link` waits for what the controller publishes.
const COMMAND: Duration = Duration::from_secs(120);

/// How much a controller tells, unless a test says otherwise.
const USUAL_LOG: [&str; 2] = ["--log-level", "info,linkspan_mirror_controller=debug"];

/// One cluster with Linkspan.
pub struct Installation {
    // The processes go before the server they speak to.
    controller: Option<Process>,
    controller_flags: Vec<String>,
    gateways: Vec<Process>,
    /// Its API.
    pub server: ApiServer,
}

impl Installation {
    /// Installs on a new API server named `name`, which is also the name other clusters link it by. Its gateway's
    /// Service gets `gateway` as its load balancer's address. Nothing of Linkspan runs yet.
    ///
    /// # Errors
    /// When the server does not come up, or refuses an object.
    pub async fn new(name: &str, address: IpAddr, gateway: Ipv4Addr) -> Result<Self> {
        Self::with_values(name, address, gateway, &[]).await
    }

    /// Two of them, `east` and `west`, each with a controller and a gateway that run in its places, in this order.
    ///
    /// # Errors
    /// As [`Installation::new`], or when something has not been built.
    pub async fn running_pair(
        address: IpAddr,
        east: [&Namespace; 2],
        west: [&Namespace; 2],
    ) -> Result<[Self; 2]> {
        let start = async |name: &str, [controller, gateway]: [&Namespace; 2]| {
            let mut one = Self::new(name, address, gateway.address()).await?;
            one.start_controller_in(controller).await?;
            one.start_gateway(gateway).await?;
            one.make_gateway_pod(0, gateway).await?;
            anyhow::Ok(one)
        };
        let (east, west) = tokio::join!(start("east", east), start("west", west));
        Ok([east?, west?])
    }

    /// [`Installation::new`] with `values` (`name=value`) set. The controller is started with the flags that its
    /// Deployment has.
    ///
    /// # Errors
    /// As [`Installation::new`].
    pub async fn with_values(
        name: &str,
        address: IpAddr,
        gateway: Ipv4Addr,
        values: &[&str],
    ) -> Result<Self> {
        let server = ApiServer::start_with(name, Options { controllers: CONTROLLERS, address }).await?;
        let mut this = Self { controller: None, controller_flags: Vec::new(), gateways: Vec::new(), server };
        this.server.apply(&this.link_cli(["install", "--ignore-cluster", "--crds"]).await?).await?;
        this.server.definitions_served().await?;
        let sets = values.iter().flat_map(|value| ["--set", *value]);
        let parts = ["install", "--ignore-cluster", "--skip-crds"].into_iter().chain(sets);
        this.server.apply(&this.link_cli(parts).await?).await?;
        this.controller_flags = this.flags_of(CONTROLLER).await?;
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": gateway.to_string()}]}}});
        let patch =
            ["-n", NAMESPACE, "patch", "service", GATEWAY, "--subresource=status", "--type=merge", "-p"];
        this.server.kubectl(patch)?.arg(status.to_string()).run(COMMAND).await?.success()?;
        Ok(this)
    }

    /// What `link-cli <args>` prints, asked of this cluster.
    ///
    /// # Errors
    /// When it fails.
    pub async fn link_cli<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<String> {
        self.ask(args).await?.success()
    }

    /// How `link-cli <args>` ends, asked of this cluster.
    ///
    /// # Errors
    /// When it cannot be started, or does not end in time.
    pub async fn ask<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<Output> {
        let kubeconfig = self.server.write_kubeconfig("link-cli", &self.server.admin_kubeconfig()?)?;
        let link_cli = Program::ours("link-cli")?.arg("--kubeconfig").arg(kubeconfig).args(args);
        link_cli.run(COMMAND).await
    }

    /// Starts controllers with these flags besides.
    #[must_use]
    pub fn with_flags(mut self, flags: &[String]) -> Self {
        self.controller_flags.extend_from_slice(flags);
        self
    }

    /// The flags that Deployment `name` gives its container, but for those about the log.
    async fn flags_of(&self, name: &str) -> Result<Vec<String>> {
        let path = "jsonpath={.spec.template.spec.containers[0].args}";
        let args = ["-n", NAMESPACE, "get", "deployment", name, "-o", path];
        let text = self.server.kubectl(args)?.run(COMMAND).await?.success()?;
        let flags: Vec<String> = serde_json::from_str(&text).context("a Deployment's args are no list")?;
        Ok(flags.into_iter().filter(|flag| !flag.starts_with("--log-")).collect())
    }

    /// Starts the controller, with the rights of its own account.
    ///
    /// # Errors
    /// When it has not been built.
    pub async fn start_controller(&mut self) -> Result<()> {
        self.start_controller_with(&USUAL_LOG).await
    }

    /// [`Installation::start_controller`] with these flags in place of its usual log level.
    ///
    /// # Errors
    /// As [`Installation::start_controller`].
    pub async fn start_controller_with(&mut self, flags: &[&str]) -> Result<()> {
        let name = format!("{}-controller", self.server.name());
        self.controller = Some(self.controller_with(&name, flags).await?);
        Ok(())
    }

    /// Starts one more controller, as a pod called `name`.
    ///
    /// # Errors
    /// When it has not been built.
    pub async fn controller_named(&self, name: &str) -> Result<Process> {
        self.controller_with(name, &USUAL_LOG).await
    }

    async fn controller_with(&self, name: &str, flags: &[&str]) -> Result<Process> {
        let kubeconfig = self.server.kubeconfig_of(NAMESPACE, CONTROLLER).await?;
        let file = self.server.write_kubeconfig(name, &kubeconfig)?;
        let program = Program::ours(CONTROLLER)?.arg("--kubeconfig").arg(file).args([
            "--namespace",
            NAMESPACE,
            "--pod-name",
            name,
            "--admin-addr",
            "127.0.0.1:0",
        ]);
        program.args(flags).args(&self.controller_flags).start(name)
    }

    /// Starts the controller in `place`, with its admin page at the port that pods have it at, and makes its Pod, so that
    /// the API server passes questions on to it. The API server must be reachable from `place`.
    ///
    /// # Errors
    /// When it has not been built, or the server refuses the Pod.
    pub async fn start_controller_in(&mut self, place: &Namespace) -> Result<()> {
        let name = format!("{}-controller", self.server.name());
        let kubeconfig = self.server.kubeconfig_of(NAMESPACE, CONTROLLER).await?;
        let file = self.server.write_kubeconfig(&name, &kubeconfig)?;
        let program = Program::ours(CONTROLLER)?.arg("--kubeconfig").arg(file);
        let program = program.args(["--namespace", NAMESPACE, "--pod-name", &name]);
        self.controller = Some(program.within(place).start(&name)?);
        self.make_pod(CONTROLLER, &name, place.address()).await
    }

    /// Makes the Pod of the gateway that was started in `place` as the first, second, ...
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn make_gateway_pod(&self, index: usize, place: &Namespace) -> Result<()> {
        self.make_pod(GATEWAY, &format!("{}-gateway-{index}", self.server.name()), place.address()).await
    }

    /// Makes a running Pod of a Deployment, and counts it there, as the kubelet and the controllers would.
    async fn make_pod(&self, deployment: &str, name: &str, address: Ipv4Addr) -> Result<()> {
        let kubectl = |args: &[&str]| self.server.kubectl(["-n", NAMESPACE].iter().chain(args).copied());
        let found =
            kubectl(&["get", "deployment", deployment, "-o", "json"])?.run(COMMAND).await?.success()?;
        let found: Value = serde_json::from_str(&found)?;
        let mut pod = found["spec"]["template"].clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["namespace"] = json!(NAMESPACE);
        pod["metadata"]["name"] = json!(name);
        pod["spec"]["nodeName"] = json!("node-1");
        self.server.apply(&pod.to_string()).await?;
        let ip = address.to_string();
        let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}}).to_string();
        let of_status = ["--subresource=status", "--type=merge", "-p"];
        let patch = [&["patch", "pod", name][..], &of_status, &[status.as_str()]].concat();
        kubectl(&patch)?.run(COMMAND).await?.success()?;
        let replicas = found["spec"]["replicas"].clone();
        let ready = json!({"status": {"replicas": replicas, "readyReplicas": replicas}}).to_string();
        let patch = [&["patch", "deployment", deployment][..], &of_status, &[ready.as_str()]].concat();
        kubectl(&patch)?.run(COMMAND).await?.success()?;
        Ok(())
    }

    /// The running controller.
    ///
    /// # Errors
    /// When it was not started.
    pub fn controller(&mut self) -> Result<&mut Process> {
        self.controller.as_mut().context("the controller was not started")
    }

    /// What the controller has written so far.
    pub fn controller_log(&self) -> String {
        self.controller.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Starts a gateway in `place`, with the rights of its own account, and tells the cluster where it is, as the
    /// slice of its Service would. The API server must be reachable from `place`.
    ///
    /// # Errors
    /// When it has not been built, or the server refuses the slice.
    pub async fn start_gateway(&mut self, place: &Namespace) -> Result<()> {
        self.start_gateway_with(place, "info,linkspan_gateway=debug").await
    }

    /// [`Installation::start_gateway`] with a log level.
    ///
    /// # Errors
    /// As [`Installation::start_gateway`].
    pub async fn start_gateway_with(&mut self, place: &Namespace, log_level: &str) -> Result<()> {
        let name = format!("{}-gateway-{}", self.server.name(), self.gateways.len());
        let kubeconfig = self.server.kubeconfig_of(NAMESPACE, GATEWAY).await?;
        let file = self.server.write_kubeconfig(&name, &kubeconfig)?;
        let program = Program::ours(GATEWAY)?.arg("--kubeconfig").arg(file).args([
            "--namespace",
            NAMESPACE,
            "--pod-name",
            &name,
            "--log-level",
            log_level,
        ]);
        self.gateways.push(program.within(place).start(&name)?);
        let slice =
            slice(NAMESPACE, GATEWAY, &name, &[(GATEWAY_PORT_NAME, GATEWAY_PORT), ("admin", ADMIN_PORT)])
                .with(&name, place.address());
        self.server.apply(&slice.0.to_string()).await
    }

    /// The gateways, in the order in which they were started.
    pub fn gateways(&mut self) -> &mut [Process] {
        &mut self.gateways
    }

    /// Links this cluster into `importer`, as a user does: what `link-cli link` prints here is applied there.
    ///
    /// # Errors
    /// When the CA is not published in time, or `importer` refuses an object.
    pub async fn link_into(&self, importer: &Self) -> Result<()> {
        let url = self.server.url();
        let link = ["link", "--cluster-name", self.server.name(), "--api-server-address", &url];
        importer.server.apply(&self.link_cli(link).await?).await
    }
}

/// A slice of a Service as the endpoint controller would write it.
#[derive(Clone, Debug)]
pub struct Slice(pub Value);

/// A slice named `name` of Service `service`, with TCP ports and no endpoints yet.
pub fn slice(namespace: &str, service: &str, name: &str, ports: &[(&str, u16)]) -> Slice {
    let ports: Vec<Value> =
        ports.iter().map(|(name, port)| json!({"name": name, "port": port, "protocol": "TCP"})).collect();
    Slice(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace,
            "name": name,
            "labels": {SLICE_SERVICE_NAME: service, SLICE_MANAGED_BY: "tests.linkspan.dev"},
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [],
    }))
}

impl Slice {
    /// Adds a ready pod.
    #[must_use]
    pub fn with(mut self, pod: &str, address: Ipv4Addr) -> Self {
        if let Some(endpoints) = self.0["endpoints"].as_array_mut() {
            endpoints.push(json!({
                "addresses": [address.to_string()],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "name": pod},
            }));
        }
        self
    }
}
