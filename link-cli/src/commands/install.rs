//! `install`: prints an installation.

use crate::{
    app::Outcome,
    cli::Global,
    cluster::Cluster,
    manifests::{object::Object, system, values::Values},
    observe::standing::{self, Standing},
    output::{self, Format},
};
use anyhow::{Context, anyhow, bail};
use clap::Args;
use kube::CustomResourceExt;
use linkspan_core::api::{crds::PART_OF, link::Link};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Flags of `install`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli --context east install | kubectl --context east apply -f -
  link-cli --context east install --ha --registry registry.example/mirror > linkspan.yaml
  link-cli --context east install -f values.yaml --set gateway.replicas=4
  link-cli install --crds --ignore-cluster > definitions.yaml")]
pub struct InstallArgs {
    /// Do not ask the cluster whether something is in the way
    #[arg(long)]
    ignore_cluster: bool,
    #[command(flatten)]
    chosen: Chosen,
}

/// What both `install` and `upgrade` can be told.
#[derive(Debug, Args)]
pub struct Chosen {
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
    /// One value that is a text, whatever it looks like; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set_string: Vec<String>,
    /// Print only the CustomResourceDefinitions
    #[arg(long, conflicts_with = "skip_crds")]
    crds: bool,
    /// Print no CustomResourceDefinitions
    #[arg(long)]
    skip_crds: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Chosen {
    /// The values that these flags choose: those that are kept, then files, then `--set`, then the flags of their own.
    fn values(&self, kept: Option<Value>) -> anyhow::Result<Values> {
        let files = self.values.iter().map(read_values);
        let layers = kept.into_iter().map(Ok).chain(files).collect::<anyhow::Result<Vec<_>>>()?;
        let texts = self.set_string.iter().map(|set| match set.split_once('=') {
            Some((name, text)) => format!("{name}={}", json!(text)),
            None => set.clone(),
        });
        let sets: Vec<String> = self.set.iter().cloned().chain(texts).collect();
        let mut values = Values::from_layers(layers, &sets)?;
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

    /// Form of the output.
    pub fn output(&self) -> Format {
        self.output
    }

    /// Whether another product's definitions may stay.
    pub fn without_definitions(&self) -> bool {
        self.skip_crds
    }

    /// What is printed. `kept`: values of an earlier installation.
    ///
    /// # Errors
    /// When a value cannot be used.
    pub fn objects(&self, namespace: &str, kept: Option<Value>) -> anyhow::Result<Vec<Object>> {
        let values = self.values(kept)?;
        let mut objects = vec![];
        if !self.skip_crds {
            objects.extend(system::definitions());
            objects.extend(system::smi_definitions());
        }
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
/// When a value cannot be used, or something else is in the way.
pub async fn run(global: &Global, args: InstallArgs) -> anyhow::Result<Outcome> {
    let chosen = &args.chosen;
    let mut objects = chosen.objects(&global.linkspan_namespace, None)?;
    if !args.ignore_cluster {
        let cluster = Cluster::connect(global, None).await?;
        let found = standing::look(&cluster).await;
        let found =
            found.map_err(|e| anyhow!("{e:#} (--ignore-cluster prints without asking the cluster)"))?;
        if let Some(why) = obstacle(&found, &cluster.namespace, chosen.skip_crds) {
            bail!("{why} (context {})", cluster.context);
        }
        leave_foreign(&mut objects, &found);
        if found.values.is_some() {
            output::note(&format!(
                "Linkspan is installed in context {} already: `link-cli upgrade` keeps its values, this has the defaults and what the flags say",
                cluster.context
            ));
        }
    }
    output::print(&output::documents(&objects, chosen.output, None))?;
    Ok(Outcome::Well)
}

/// Takes out SMI's definitions that the cluster has from somebody else: they stay as they are.
pub fn leave_foreign(objects: &mut Vec<Object>, found: &Standing) {
    let link = Link::crd_name();
    let foreign = found.definitions.iter().filter(|d| d.name != link && !is_ours(&d.labels));
    for definition in foreign {
        objects.retain(|object| object["metadata"]["name"] != definition.name.as_str());
    }
}

/// Why nothing may be installed or upgraded here: one sentence with advice.
pub fn obstacle(found: &Standing, namespace: &str, without_definitions: bool) -> Option<String> {
    let link = Link::crd_name();
    let foreign = found.definitions.iter().any(|d| d.name == link && !is_ours(&d.labels));
    if foreign && !without_definitions {
        return Some(format!(
            "CustomResourceDefinition {link} belongs to another product, whose Links would be read wrongly: remove that product first, or print with --skip-crds if its definition is to stay"
        ));
    }
    if let Some(release) = &found.helm_release {
        return Some(format!(
            "Linkspan is installed here by Helm, as release {release}: use `helm upgrade {release}`, which knows its values"
        ));
    }
    let other = found.owner_namespace.as_ref().filter(|owner| *owner != namespace)?;
    Some(format!(
        "Linkspan is installed in namespace {other}, and a cluster has room for one installation: name it with -L {other}, or uninstall it first"
    ))
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
    use crate::observe::standing::Definition;
    use crate::{
        cli::{Cli, Command},
        manifests::object::Key,
    };
    use clap::Parser;

    fn install(flags: &str) -> Chosen {
        let line = ["link-cli", "install"].into_iter().chain(flags.split_whitespace());
        match Cli::try_parse_from(line).unwrap().command {
            Command::Install(args) => args.chosen,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn definitions_come_first_then_the_namespace() {
        let kinds = |flags| -> Vec<String> {
            install(flags).objects("linkspan", None).unwrap().iter().map(|o| Key::of(o).kind).collect()
        };
        let all = kinds("");
        assert!(all[..4].iter().all(|kind| kind == "CustomResourceDefinition") && all[4] == "Namespace");
        assert_eq!(kinds("--crds"), all[..4]);
        assert_eq!(kinds("--skip-crds"), all[4..]);
    }

    #[test]
    fn flags_win_over_set() {
        let values =
            install("--set gateway.replicas=5 --set registry=a --registry b --ha").values(None).unwrap();
        assert_eq!(
            (values.gateway_replicas(), values.controller_replicas(), values.registry.as_str()),
            (5, 2, "b")
        );
        let text = install("--set-string gateway.serviceAnnotations.a=1").values(None).unwrap();
        assert_eq!(text.gateway.service_annotations["a"], "1");
        assert!(install("--gateway-service-type Load").values(None).is_err());
    }

    #[test]
    fn kept_values_are_overlaid_by_flags() {
        let kept = json!({"gateway": {"replicas": 5, "port": 5143}});
        let values = install("--gateway-replicas 4").values(Some(kept)).unwrap();
        assert_eq!((values.gateway_replicas(), values.gateway.port), (4, 5143));
    }

    #[test]
    fn what_is_in_the_way_is_told_with_what_mends_it() {
        let nothing = Standing::default();
        assert_eq!(obstacle(&nothing, "linkspan", false), None);
        let named = |name: &str, labels| Definition { name: name.into(), labels, stored_versions: vec![] };
        let foreign =
            Standing { definitions: vec![named(Link::crd_name(), json!({}))], ..Standing::default() };
        assert!(obstacle(&foreign, "linkspan", false).unwrap().contains("another product"));
        assert_eq!(obstacle(&foreign, "linkspan", true), None);
        let helm = Standing { helm_release: Some("ls".into()), ..Standing::default() };
        assert!(obstacle(&helm, "linkspan", false).unwrap().contains("helm upgrade ls"));
        let elsewhere = Standing { owner_namespace: Some("tools".into()), ..Standing::default() };
        assert!(obstacle(&elsewhere, "linkspan", false).unwrap().contains("-L tools"));
        assert_eq!(obstacle(&elsewhere, "tools", false), None);
    }

    #[test]
    fn only_our_own_definitions_are_taken_for_ours() {
        assert!(is_ours(&json!({"app.kubernetes.io/part-of": "linkspan"})));
        assert!(!is_ours(&json!({"app.kubernetes.io/part-of": "other"})));
        assert!(!is_ours(&Value::Null));
    }
}
