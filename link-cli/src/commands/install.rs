//! `install`: prints an installation.

use crate::{
    app::Outcome,
    cli::Global,
    cluster::Cluster,
    manifests::{object::Object, system, values::Values},
    output::{self, Format},
};
use anyhow::{Context, anyhow, bail};
use clap::Args;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use linkspan_core::api::{crds::PART_OF, link::Link};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Flags of `install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// Three gateways and two controllers, spread over nodes, with disruption budgets
    #[arg(long)]
    ha: bool,
    /// Type of the gateway's Service: LoadBalancer, NodePort or ClusterIP [default: LoadBalancer]
    #[arg(long, value_name = "TYPE")]
    gateway_service_type: Option<String>,
    /// Port of the gateway's Service [default: 4143]
    #[arg(long, value_name = "PORT")]
    gateway_port: Option<u16>,
    /// Pods of the gateway [default: 2, with --ha 3]
    #[arg(long, value_name = "NUMBER")]
    gateway_replicas: Option<u32>,
    /// Put before the images' names, e.g. registry.example/mirror
    #[arg(long, value_name = "PREFIX")]
    registry: Option<String>,
    /// Tag of the images [default: this tool's version]
    #[arg(long, value_name = "TAG")]
    image_version: Option<String>,
    /// File with values, as for the Helm chart; may be repeated, `-` is stdin
    #[arg(short = 'f', long, value_name = "FILE")]
    values: Vec<PathBuf>,
    /// One value, as for the Helm chart, e.g. gateway.replicas=3; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Print only the CustomResourceDefinitions
    #[arg(long, conflicts_with = "skip_crds")]
    crds: bool,
    /// Print no CustomResourceDefinitions
    #[arg(long)]
    skip_crds: bool,
    /// Do not ask the cluster whether something is in the way
    #[arg(long)]
    ignore_cluster: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl InstallArgs {
    /// The values that these flags choose: files first, then `--set`, then the flags of their own.
    fn values(&self) -> anyhow::Result<Values> {
        let files = self.values.iter().map(read_values).collect::<anyhow::Result<Vec<_>>>()?;
        let mut values = Values::from_layers(files, &self.set)?;
        values.ha |= self.ha;
        if let Some(service_type) = &self.gateway_service_type {
            values.gateway.service_type.clone_from(service_type);
        }
        values.gateway.port = self.gateway_port.unwrap_or(values.gateway.port);
        values.gateway.replicas = self.gateway_replicas.or(values.gateway.replicas);
        if let Some(registry) = &self.registry {
            values.registry.clone_from(registry);
        }
        if let Some(version) = &self.image_version {
            values.image_version.clone_from(version);
        }
        Ok(values.checked()?)
    }

    /// What is printed.
    fn objects(&self, namespace: &str) -> anyhow::Result<Vec<Object>> {
        let values = self.values()?;
        let mut objects = if self.skip_crds { vec![] } else { system::definitions() };
        if !self.crds {
            objects.push(system::namespace(namespace));
            objects.extend(system::parts(namespace, &values));
        }
        Ok(objects)
    }
}

/// Runs `install`.
///
/// # Errors
/// When a value cannot be used, or another product's definitions are in the way.
pub async fn run(global: &Global, args: InstallArgs) -> anyhow::Result<Outcome> {
    let objects = args.objects(&global.linkspan_namespace)?;
    if !args.ignore_cluster && !args.skip_crds {
        let cluster = Cluster::connect(global, None).await?;
        refuse_foreign_definitions(&cluster).await?;
    }
    output::print(&output::documents(&objects, args.output, None))?;
    Ok(Outcome::Well)
}

/// Ends with advice where the Link's definition belongs to somebody else.
///
/// # Errors
/// When it does, or the cluster cannot be asked.
async fn refuse_foreign_definitions(cluster: &Cluster) -> anyhow::Result<()> {
    let api = cluster.all::<CustomResourceDefinition>();
    let asked = cluster.get(&api, Link::crd_name(), "CustomResourceDefinition").await;
    let found = asked.map_err(|e| anyhow!("{e:#} (--ignore-cluster prints without asking the cluster)"))?;
    if found.as_ref().is_some_and(|crd| !is_ours(&json!(crd.metadata.labels))) {
        bail!(
            "CustomResourceDefinition {} in context {} belongs to another product, whose Links would be read wrongly: remove that product first, or print with --skip-crds if its definition is to stay",
            Link::crd_name(),
            cluster.context
        );
    }
    Ok(())
}

/// Whether labels are those of our own objects.
pub fn is_ours(labels: &Value) -> bool {
    labels[PART_OF.0] == PART_OF.1
}

fn read_values(path: &PathBuf) -> anyhow::Result<Value> {
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).context("values on stdin cannot be read")?
    } else {
        std::fs::read_to_string(path)
            .with_context(|| format!("values file {} cannot be read", path.display()))?
    };
    serde_norway::from_str(&text).with_context(|| format!("values file {} is not YAML", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::{Cli, Command},
        manifests::object::Key,
    };
    use clap::Parser;

    fn install(flags: &str) -> InstallArgs {
        let line = ["link-cli", "install"].into_iter().chain(flags.split_whitespace());
        match Cli::try_parse_from(line).unwrap().command {
            Command::Install(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn definitions_come_first_then_the_namespace() {
        let kinds = |flags| -> Vec<String> {
            install(flags).objects("linkspan").unwrap().iter().map(|o| Key::of(o).kind).collect()
        };
        let all = kinds("");
        assert_eq!(all[..3], ["CustomResourceDefinition", "CustomResourceDefinition", "Namespace"]);
        assert_eq!(kinds("--crds"), all[..2]);
        assert_eq!(kinds("--skip-crds"), all[2..]);
    }

    #[test]
    fn flags_win_over_set() {
        let values = install("--set gateway.replicas=5 --set registry=a --registry b --ha").values().unwrap();
        assert_eq!(
            (values.gateway_replicas(), values.controller_replicas(), values.registry.as_str()),
            (5, 2, "b")
        );
        assert!(install("--gateway-service-type Load").values().is_err());
    }

    #[test]
    fn only_our_own_definitions_are_taken_for_ours() {
        assert!(is_ours(&json!({"app.kubernetes.io/part-of": "linkspan"})));
        assert!(!is_ours(&json!({"app.kubernetes.io/part-of": "other"})));
        assert!(!is_ours(&Value::Null));
    }
}
