//! The kind clusters of the test bed, which `make clusters` brings up.

mod evidence;
pub mod system;

use crate::{
    artifacts,
    program::{Output, Program},
    tools, wait,
};
use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, Config, ResourceExt,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{path::PathBuf, time::Duration};

/// Contexts of the two clusters that always exist.
pub const EAST_WEST: [&str; 2] = ["cluster-east", "cluster-west"];
/// Time one command may take, unless a test says otherwise.
pub const COMMAND: Duration = Duration::from_secs(60);

/// One running cluster.
#[derive(Clone)]
pub struct Cluster {
    /// Name of its context, e.g. `cluster-east`.
    pub context: String,
    /// A client with all rights; it belongs to the runtime it was made in.
    pub client: Client,
}

/// The running clusters.
#[derive(Clone)]
pub struct Clusters {
    /// `cluster-east`.
    pub east: Cluster,
    /// `cluster-west`.
    pub west: Cluster,
}

/// A namespace of one test, of the same name in both clusters. On drop it is deleted; if that happens because the
/// test failed, what is in it and in the installation is kept in the test's artifacts first.
#[derive(Debug)]
pub struct TestNamespace {
    name: String,
}

impl Clusters {
    /// Signs in to both.
    ///
    /// # Errors
    /// When a context is missing or does not answer.
    pub async fn connect() -> Result<Self> {
        Ok(Self { east: Cluster::connect(EAST_WEST[0]).await?, west: Cluster::connect(EAST_WEST[1]).await? })
    }

    /// A namespace for one test, whose name begins with `name`.
    ///
    /// # Errors
    /// When a cluster refuses.
    pub async fn namespace(&self, name: &str) -> Result<TestNamespace> {
        let mut namespace = Namespace::default();
        namespace.metadata.generate_name = Some(format!("{name}-"));
        let create = async |cluster: &Cluster, namespace: &Namespace| {
            let all: Api<Namespace> = Api::all(cluster.client.clone());
            let created = all.create(&PostParams::default(), namespace).await;
            created.with_context(|| format!("cannot make a namespace in {}", cluster.context))
        };
        let made = TestNamespace { name: create(&self.east, &namespace).await?.name_any() };
        namespace.metadata.generate_name = None;
        namespace.metadata.name = Some(made.name.clone());
        create(&self.west, &namespace).await?;
        Ok(made)
    }
}

impl Cluster {
    /// Signs in to the cluster of `context`.
    ///
    /// # Errors
    /// When the context is missing or does not answer.
    pub async fn connect(context: &str) -> Result<Self> {
        let path = kubeconfig();
        let parsed =
            Kubeconfig::read_from(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
        let mut config = Config::from_custom_kubeconfig(parsed, &options).await?;
        // The machine's own proxy settings are for the world outside.
        config.proxy_url = None;
        let client = Client::try_from(config)?;
        let answers = wait::until(COMMAND, async || Ok(client.apiserver_version().await?)).await;
        answers.with_context(|| format!("{context} does not answer: `make clusters` mends it"))?;
        Ok(Self { context: context.to_owned(), client })
    }

    /// `kubectl --context <this> <args>`, not yet run.
    pub fn kubectl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Program {
        kubectl(&self.context, args)
    }

    /// `link-cli --context <this> <args>`, not yet run.
    ///
    /// # Errors
    /// When link-cli has not been built.
    pub fn link_cli<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<Program> {
        let program = Program::ours("link-cli")?.args(["--context", &self.context]).args(args);
        Ok(program.env("KUBECONFIG", kubeconfig()))
    }

    /// Applies manifests (YAML).
    ///
    /// # Errors
    /// When the cluster refuses one.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        self.kubectl(["apply", "-f", "-"]).stdin(manifests).run(COMMAND).await?.success()?;
        Ok(())
    }
}

impl TestNamespace {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            evidence::collect(&EAST_WEST, &self.name);
            eprintln!("--- objects, events and logs are in {}", artifacts::folder().display());
        }
        for context in EAST_WEST {
            let delete =
                kubectl(context, ["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"]);
            if let Err(error) = delete.run_blocking(COMMAND).and_then(Output::success) {
                eprintln!("{error:#}");
            }
        }
    }
}

/// `kubectl --context <context> <args>`, not yet run.
pub fn kubectl<'a>(context: &str, args: impl IntoIterator<Item = &'a str>) -> Program {
    Program::new("kubectl").args(["--context", context]).args(args).env("KUBECONFIG", kubeconfig())
}

/// Runs `script` with bash as a user would: kubectl, link-cli and the clusters' kubeconfig are there. The first
/// command that fails ends it.
///
/// # Errors
/// When it has not ended by `deadline`.
pub async fn shell(script: &str, deadline: Duration) -> Result<Output> {
    let bash = Program::new("bash").args(["-euo", "pipefail", "-c", script]);
    bash.env("KUBECONFIG", kubeconfig()).run(deadline).await
}

/// The clusters' kubeconfig: `$KUBECONFIG`, else the test bed's.
pub fn kubeconfig() -> PathBuf {
    std::env::var_os("KUBECONFIG").map_or_else(|| tools::cache().join("kubeconfig"), Into::into)
}
