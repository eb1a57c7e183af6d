//! `diagnostics endpoints`: where the name of a Service leads.

use super::way::{self, Seen};
use crate::{
    app::Outcome,
    cli::Global,
    cluster::Cluster,
    observe::health,
    output::{self, JsonForm},
};
use anyhow::{anyhow, bail};
use clap::Args;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{Api, api::ListParams};
use linkspan_core::api::{labels::SLICE_SERVICE_NAME, names::is_dns_label};

/// Flags of `diagnostics endpoints`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli --context east diagnostics endpoints my-api-west
  link-cli --context east -n shop diagnostics endpoints my-api-west
  link-cli --context east diagnostics endpoints my-api-west.shop.svc.cluster.local:8080
  link-cli --context east diagnostics endpoints my-api-west -o json")]
pub(super) struct EndpointsArgs {
    /// Name of the Service as a pod would call it: `<service>[.<namespace>[.svc.<domain>]][:<port>]`
    #[arg(value_name = "NAME", value_parser = name)]
    name: Name,
    /// Form of the output
    #[arg(short, long, value_enum)]
    output: Option<JsonForm>,
}

/// A name as a pod would call it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    service: String,
    namespace: Option<String>,
    port: Option<u16>,
}

fn name(text: &str) -> Result<Name, String> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, Some(port.parse::<u16>().map_err(|_| format!("{port:?} is no port"))?)),
        None => (text, None),
    };
    let mut parts = name.trim_end_matches('.').split('.');
    let service = parts.next().unwrap_or_default();
    let namespace = parts.next();
    let rest = parts.next();
    let labels = [Some(service), namespace].into_iter().flatten().all(is_dns_label);
    if !labels || rest.is_some_and(|word| word != "svc") {
        return Err("<service>[.<namespace>[.svc.<domain>]][:<port>] is expected".to_owned());
    }
    Ok(Name { service: service.to_owned(), namespace: namespace.map(str::to_owned), port })
}

/// Runs it. A name that leads nowhere is told in words and by the exit code.
///
/// # Errors
/// When there is no such Service, or the cluster cannot be asked.
pub(super) async fn run(global: &Global, args: &EndpointsArgs) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(global, None).await?;
    let namespace = args.name.namespace.clone().unwrap_or_else(|| cluster.namespace_of_user(global));
    let api = Api::<Service>::namespaced(cluster.client.clone(), &namespace);
    let service = cluster.get(&api, &args.name.service, "Service").await?.ok_or_else(|| {
        anyhow!(
            "there is no Service {} in namespace {namespace} of context {}: `link-cli services` lists the mirrors",
            args.name.service,
            cluster.context
        )
    })?;
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    if let Some(port) = args.name.port
        && !ports.iter().any(|p| p.port == i32::from(port))
    {
        let ports: Vec<String> = ports.iter().map(|port| port.port.to_string()).collect();
        bail!("Service {} has no port {port}; its ports are {}", args.name.service, ports.join(", "));
    }
    let slices = Api::<EndpointSlice>::namespaced(cluster.client.clone(), &namespace);
    let of = ListParams::default().labels(&format!("{SLICE_SERVICE_NAME}={}", args.name.service));
    let slices = cluster.list(&slices, &of, "EndpointSlices").await?;
    let links = health::links(&cluster).await.unwrap_or_default();
    let way = way::of(&Seen { service: &service, slices: &slices, links: &links, port: args.name.port });
    output::print(&match args.output {
        Some(JsonForm::Json) => output::json(&way),
        None => way.text(),
    })?;
    Ok(if way.verdict.works { Outcome::Well } else { Outcome::FoundErrors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_pods_call_them() {
        let read = |text: &str| name(text).unwrap();
        let full = read("api-west.shop.svc.cluster.local:8080");
        assert_eq!(
            (full.service.as_str(), full.namespace.as_deref(), full.port),
            ("api-west", Some("shop"), Some(8080))
        );
        assert_eq!(read("api-west"), Name { service: "api-west".into(), namespace: None, port: None });
        assert_eq!(read("api-west.shop").namespace.as_deref(), Some("shop"));
        for wrong in ["", "A", "a.b.pod", "a:http", "a..b", "a:70000"] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
