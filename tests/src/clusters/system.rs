//! Linkspan on the kind clusters, installed by the charts; uninstalled on drop.

use super::{COMMAND, Cluster, Clusters, EAST_WEST, kubeconfig, shell};
use crate::{
    program::{Output, Program},
    tools,
};
use anyhow::Result;
use linkspan_core::api::labels::{CONTROLLER, GATEWAY, NAMESPACE};
use std::{path::Path, time::Duration};

/// Time a release may take until all its pods are ready.
const RELEASE: Duration = Duration::from_secs(240);
/// Time an installation may take to be gone.
const REMOVAL: Duration = Duration::from_secs(300);
/// Tag of the images, where it is not the charts' version.
const IMAGE_VERSION: &str = "LINKSPAN_IMAGE_VERSION";

/// Linkspan in both clusters.
#[derive(Debug)]
pub struct System(());

impl System {
    /// Installs in both clusters by the charts of folder `charts`, with `values` (`a.b=c`); what an earlier run left is
    /// removed first.
    ///
    /// # Errors
    /// When a cluster refuses, or pods do not get ready.
    pub async fn install(clusters: &Clusters, charts: &Path, values: &[&str]) -> Result<Self> {
        remove().await?;
        let this = Self(());
        for cluster in [&clusters.east, &clusters.west] {
            let namespace = format!(
                "{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}, \
                 labels: {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
            );
            cluster.apply(&namespace).await?;
        }
        this.upgrade(clusters, charts, values).await?;
        Ok(this)
    }

    /// Upgrades both clusters at once, definitions first, and waits until all new pods are ready.
    ///
    /// # Errors
    /// As [`System::install`].
    pub async fn upgrade(&self, clusters: &Clusters, charts: &Path, values: &[&str]) -> Result<()> {
        let both = [&clusters.east, &clusters.west];
        for cluster in both {
            helm(cluster, &charts.join("linkspan-crds"), "linkspan-crds", &[]).await?;
        }
        let [east, west] = both.map(|cluster| async move {
            helm(cluster, &charts.join("linkspan"), "linkspan", values).await?;
            for part in [CONTROLLER, GATEWAY] {
                cluster.rolled_out(part).await?;
            }
            anyhow::Ok(())
        });
        tokio::try_join!(east, west)?;
        Ok(())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let removed = Program::new("bash")
            .args(["-c", &removal()])
            .env("KUBECONFIG", kubeconfig())
            .run_blocking(REMOVAL)
            .and_then(Output::success);
        if let Err(error) = removed {
            eprintln!("{error:#}");
        }
    }
}

impl Cluster {
    /// Waits until all pods of Deployment `name` are new and ready.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn rolled_out(&self, name: &str) -> Result<()> {
        let deployment = format!("deployment/{name}");
        let status = ["-n", NAMESPACE, "rollout", "status", &deployment, "--timeout=200s"];
        self.kubectl(status).run(RELEASE).await?.success()?;
        Ok(())
    }
}

/// Installs or upgrades release `release` of `chart`. The images' tag is `$LINKSPAN_IMAGE_VERSION`, if that is set.
///
/// # Errors
/// When helm fails.
pub async fn helm(cluster: &Cluster, chart: &Path, release: &str, values: &[&str]) -> Result<()> {
    let upgrade = ["upgrade", "--install", release].map(std::ffi::OsStr::new);
    let mut helm = Program::new("helm").args(["--kube-context", &cluster.context, "--namespace", NAMESPACE]);
    helm = helm.env("KUBECONFIG", kubeconfig()).args(upgrade).arg(chart);
    if let (Ok(version), "linkspan") = (std::env::var(IMAGE_VERSION), release) {
        helm = helm.args(["--set", &format!("imageVersion={version}")]);
    }
    for value in values {
        helm = helm.args(["--set", value]);
    }
    helm.run(RELEASE).await?.success()?;
    Ok(())
}

/// The tag of the images that are tried.
pub fn image_version() -> String {
    std::env::var(IMAGE_VERSION).unwrap_or_else(|_| env!("CARGO_PKG_VERSION").to_owned())
}

/// Removes Linkspan from both clusters, if it is there.
///
/// # Errors
/// When something stays.
pub async fn remove() -> Result<()> {
    shell(&removal(), REMOVAL).await?.success()?;
    Ok(())
}

fn removal() -> String {
    let folder = tools::ours("link-cli").unwrap_or_else(|_| "link-cli".into());
    // The namespace that `install` made for the charts is not the product's to delete, and the next test starts without it.
    let one = |context: &str| {
        format!(
            "{{ '{}' --context {context} uninstall --force --yes && kubectl --context {context} delete namespace \
             {NAMESPACE} --ignore-not-found --timeout=120s; }} & jobs+=($!)\n",
            folder.display()
        )
    };
    let all: String = EAST_WEST.iter().map(|context| one(context)).collect();
    format!("jobs=()\n{all}for job in \"${{jobs[@]}}\"; do wait \"$job\"; done")
}

/// Links west into east under the name `cluster-west`, and waits until the gateway is alive.
///
/// # Errors
/// When it does not get alive.
pub async fn link_west_into_east(clusters: &Clusters) -> Result<()> {
    let link = ["link", "--to", EAST_WEST[0], "--cluster-name", EAST_WEST[1], "--wait"];
    clusters.west.link_cli(link)?.run(COMMAND * 2).await?.success()?;
    Ok(())
}
