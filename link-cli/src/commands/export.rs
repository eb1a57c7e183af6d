//! `export` and `unexport`: the label by which a Service is seen by linked clusters, with a check that it will work.

use crate::{
    app::Outcome,
    cli::{Global, dns_label, duration},
    cluster::Cluster,
    manifests::{link::MAX_LINK_NAME, object::Key},
    observe::exports,
    output,
    progress::{Look, Progress, wait_for},
};
use anyhow::{anyhow, bail};
use clap::Args;
use k8s_openapi::api::{
    core::v1::{Service, ServiceAccount, ServicePort},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch},
};
use linkspan_core::api::{
    exported_service::ExportedService,
    labels::{EXPORT_PORTS, EXPORTED, LINK_ACCOUNT, MIRRORED_SERVICE, SLICE_SERVICE_NAME},
    names::{self, MAX_SERVICE_NAME},
};
use serde_json::{Value, json};
use std::time::Duration;

/// Word of `--ports` that stands for all of them.
const ALL: &str = "all";

/// Flags of `export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli --context west export my-api
  link-cli --context west -n shop export my-api --ports http,9090
  link-cli --context west -n shop export my-api --dry-run")]
pub struct ExportArgs {
    /// Name of the Service
    #[arg(value_name = "SERVICE", value_parser = dns_label)]
    service: String,
    /// TCP ports that may be called, by name or number, comma separated, or `all`; unless given, what the Service's
    /// annotation says, else all
    #[arg(long, value_name = "PORT,...", value_delimiter = ',')]
    ports: Vec<String>,
    /// Only check, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Longest wait for the controller to publish it; 0: no wait
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    wait: Duration,
}

/// Flags of `unexport`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  link-cli --context west unexport my-api
  link-cli --context west -n shop unexport my-api --dry-run")]
pub struct UnexportArgs {
    /// Name of the Service
    #[arg(value_name = "SERVICE", value_parser = dns_label)]
    service: String,
    /// Only say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Longest wait until linked clusters do not see it any more; 0: no wait
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    wait: Duration,
}

/// Runs `export`. A second run changes nothing.
///
/// # Errors
/// When it would not work, the Service cannot be changed, or nobody publishes it in time.
pub async fn run(global: &Global, args: ExportArgs) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(global, None).await?;
    let (namespace, name) = (cluster.namespace_of_user(global), args.service.as_str());
    let gate = exports::gate(&cluster).await?;
    let service = service(&cluster, &namespace, name).await?;
    let wanted = judge(&service, &args.ports)
        .map_err(|why| anyhow!("{namespace}/{name} cannot be exported: {why}"))?;
    if let Some(gate) = &gate {
        match exports::may_export(&cluster, &namespace, gate).await {
            Ok(true) => {}
            Ok(false) => bail!("{namespace}/{name} cannot be exported: {}", withheld(&namespace, gate)),
            Err(e) => output::note(&format!(
                "warning: whether Services of namespace {namespace} may be exported ({gate}) is not known: {e:#}"
            )),
        }
    }
    let dry = if args.dry_run { " (dry run)" } else { "" };
    if is_exported(&service) && wanted.annotation.is_none() {
        output::note(&format!("{namespace}/{name} is exported already"));
    } else {
        let mut metadata = json!({"labels": {EXPORTED: "true"}});
        if let Some(annotation) = &wanted.annotation {
            metadata["annotations"] = json!({EXPORT_PORTS: annotation});
        }
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let key = Key::new("v1", "Service", &namespace, name);
        cluster.patch_service(&key, &patch, args.dry_run).await?;
        output::note(&format!("{namespace}/{name}: labelled {EXPORTED}=true{dry}"));
    }
    for warning in warnings(&service, &wanted, is_ready(&cluster, &namespace, name).await?) {
        output::note(&format!("warning: {warning}"));
    }
    if !args.dry_run && !args.wait.is_zero() {
        published(&cluster, &namespace, name, &wanted, args.wait).await?;
    }
    output::print(&appears(&namespace, name, &wanted, accounts(&cluster).await?))?;
    Ok(Outcome::Well)
}

/// Runs `unexport`. A second run changes nothing.
///
/// # Errors
/// When the Service cannot be changed, or linked clusters still see it after the wait.
pub async fn undo(global: &Global, args: UnexportArgs) -> anyhow::Result<Outcome> {
    let cluster = Cluster::connect(global, None).await?;
    let (namespace, name) = (cluster.namespace_of_user(global), args.service.as_str());
    let service = service(&cluster, &namespace, name).await?;
    if service.labels().contains_key(EXPORTED) {
        let patch = Patch::Merge(json!({"metadata": {"labels": {EXPORTED: null}}}));
        let key = Key::new("v1", "Service", &namespace, name);
        cluster.patch_service(&key, &patch, args.dry_run).await?;
        let dry = if args.dry_run { " (dry run)" } else { "" };
        output::note(&format!("{namespace}/{name}: label {EXPORTED} removed{dry}"));
    } else {
        output::note(&format!("{namespace}/{name} is not exported"));
    }
    if args.dry_run || args.wait.is_zero() {
        return Ok(Outcome::Well);
    }
    let export = names::export_name(&namespace, name);
    wait_for(&mut Progress::on_stderr(), args.wait, async || {
        let found = cluster.get(&cluster.ours::<ExportedService>(), &export, "ExportedService").await?;
        Ok(match found {
            None => Look::Done(()),
            Some(_) => Look::NotYet(format!(
                "{namespace}/{name} is still published to linked clusters: see `link-cli check`"
            )),
        })
    })
    .await?;
    output::print(&format!(
        "{namespace}/{name} is not seen by linked clusters any more; connections that are open end within five seconds\n"
    ))?;
    Ok(Outcome::Well)
}

async fn service(cluster: &Cluster, namespace: &str, name: &str) -> anyhow::Result<Service> {
    let api = Api::<Service>::namespaced(cluster.client.clone(), namespace);
    let found = cluster.get(&api, name, "Service").await?;
    found.ok_or_else(|| {
        anyhow!(
            "there is no Service {name} in namespace {namespace} of context {}: name its namespace with -n",
            cluster.context
        )
    })
}

fn withheld(namespace: &str, gate: &str) -> String {
    format!(
        "this installation withholds it, as its value exportNamespaces ({gate}) does not select namespace {namespace}; \
         label the namespace so that it does, or widen the value: `link-cli upgrade --set exportNamespaces=<selector> | kubectl apply -f -`"
    )
}

fn is_exported(service: &Service) -> bool {
    service.labels().get(EXPORTED).is_some_and(|value| value == "true")
}

/// What is to be exported of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    /// The ports' annotation, where it is not so yet; empty takes it away.
    annotation: Option<Value>,
    /// Ports that may be called.
    ports: Vec<i32>,
    /// Ports that no link carries.
    not_carried: Vec<String>,
}

/// What is to be exported, or why it would not work. `ports`: what was asked for.
fn judge(service: &Service, ports: &[String]) -> Result<Wanted, String> {
    let spec = service.spec.clone().unwrap_or_default();
    if service.labels().contains_key(MIRRORED_SERVICE) {
        return Err("it is itself a mirror of another cluster's Service; export it there".to_owned());
    }
    if spec.type_.as_deref() == Some("ExternalName") {
        return Err("it is of type ExternalName and has no endpoints; export a Service with pods".to_owned());
    }
    let longest = MAX_SERVICE_NAME - 2;
    if service.name_any().len() > longest {
        return Err(format!(
            "its name is too long: linked clusters call it <name>-<cluster>, with {MAX_SERVICE_NAME} characters in all; give it a name of at most {longest}"
        ));
    }
    let before = service.annotations().get(EXPORT_PORTS).map(String::as_str);
    let listed = match ports {
        [] => before.map(str::to_owned),
        [one] if one == ALL => None,
        several => Some(several.iter().map(|port| port.trim()).collect::<Vec<_>>().join(",")),
    };
    let all = spec.ports.unwrap_or_default();
    let (tcp, other): (Vec<_>, Vec<_>) = all.iter().partition(|port| is_tcp(port));
    let chosen = match &listed {
        None => tcp.clone(),
        Some(list) => {
            let names = list.split(',').map(str::trim);
            names
                .map(|wanted| find(&tcp, wanted).ok_or_else(|| no_such_port(wanted, &tcp)))
                .collect::<Result<_, _>>()?
        }
    };
    if chosen.is_empty() {
        return Err("it has no TCP port, and only TCP crosses a link; add one".to_owned());
    }
    Ok(Wanted {
        annotation: (listed.as_deref() != before).then(|| json!(listed)),
        ports: chosen.iter().map(|port| port.port).collect(),
        not_carried: if listed.is_none() { other.into_iter().map(told).collect() } else { vec![] },
    })
}

fn is_tcp(port: &ServicePort) -> bool {
    port.protocol.as_deref().unwrap_or("TCP") == "TCP"
}

fn find<'a>(ports: &[&'a ServicePort], wanted: &str) -> Option<&'a ServicePort> {
    ports.iter().find(|port| port.port.to_string() == wanted || port.name.as_deref() == Some(wanted)).copied()
}

fn no_such_port(wanted: &str, ports: &[&ServicePort]) -> String {
    let ports: Vec<String> = ports.iter().map(|port| told(port)).collect();
    format!("it has no TCP port {wanted:?}; its TCP ports are {}", ports.join(", "))
}

fn told(port: &ServicePort) -> String {
    let protocol = if is_tcp(port) {
        String::new()
    } else {
        format!("/{}", port.protocol.as_deref().unwrap_or_default())
    };
    match &port.name {
        Some(name) => format!("{}{protocol} ({name})", port.port),
        None => format!("{}{protocol}", port.port),
    }
}

fn warnings(service: &Service, wanted: &Wanted, ready: bool) -> Vec<String> {
    let mut warnings = vec![];
    if !wanted.not_carried.is_empty() {
        warnings.push(format!("no link carries port {}: only TCP crosses", wanted.not_carried.join(", ")));
    }
    let room = MAX_SERVICE_NAME.saturating_sub(service.name_any().len() + 1);
    if room < MAX_LINK_NAME {
        warnings.push(format!(
            "clusters that call this one by a name of more than {room} characters cannot mirror it: the mirror's name would be too long"
        ));
    }
    if !ready {
        warnings.push("no endpoint is ready now; calls are refused until one is".to_owned());
    }
    warnings
}

async fn is_ready(cluster: &Cluster, namespace: &str, name: &str) -> anyhow::Result<bool> {
    let api = Api::<EndpointSlice>::namespaced(cluster.client.clone(), namespace);
    let of = ListParams::default().labels(&format!("{SLICE_SERVICE_NAME}={name}"));
    let slices = cluster.list(&api, &of, "EndpointSlices").await?;
    let ready = |c: Option<&k8s_openapi::api::discovery::v1::EndpointConditions>| {
        c.is_none_or(|c| c.ready != Some(false))
    };
    Ok(slices.iter().flat_map(|slice| &slice.endpoints).any(|endpoint| ready(endpoint.conditions.as_ref())))
}

async fn published(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    wanted: &Wanted,
    limit: Duration,
) -> anyhow::Result<()> {
    let export = names::export_name(namespace, name);
    wait_for(&mut Progress::on_stderr(), limit, async || {
        let found = cluster.get(&cluster.ours::<ExportedService>(), &export, "ExportedService").await?;
        let ports = found.map(|export| export.spec.ports).unwrap_or_default();
        let seen = |port: &i32| ports.iter().any(|p| i32::from(p.port) == *port);
        Ok(if wanted.ports.iter().all(seen) {
            Look::Done(())
        } else {
            Look::NotYet(format!(
                "{namespace}/{name} is labelled, but the mirror controller has not published it yet: see `link-cli --context {} check`",
                cluster.context
            ))
        })
    })
    .await
}

/// How many accounts there are that other clusters may link with; none where the user may not know.
async fn accounts(cluster: &Cluster) -> anyhow::Result<Option<usize>> {
    let of = ListParams::default().labels(&format!("{LINK_ACCOUNT}=true"));
    let found = cluster.list(&cluster.ours::<ServiceAccount>(), &of, "ServiceAccounts").await;
    Ok(found.ok().map(|accounts| accounts.len()))
}

/// Where it will appear: the names are the other clusters' own.
fn appears(namespace: &str, name: &str, wanted: &Wanted, accounts: Option<usize>) -> String {
    let ports: Vec<String> = wanted.ports.iter().map(i32::to_string).collect();
    let who = match accounts {
        Some(0) => {
            "No account for linked clusters exists: `link-cli allow` or `link-cli install` makes one.\n"
        }
        _ => "",
    };
    format!(
        "Port {} of {namespace}/{name} can be called from every cluster that is linked to this one, as \
         {name}-<its name for this cluster>.{namespace}, e.g. {name}-west.{namespace}.svc.cluster.local; \
         namespace {namespace} must exist there.\n{who}",
        ports.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::from_value;

    fn service(change: impl FnOnce(&mut Value)) -> Service {
        let mut value = json!({
            "metadata": {"name": "my-api", "namespace": "shop"},
            "spec": {"ports": [{"name": "http", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "metrics", "port": 9090}]},
        });
        change(&mut value);
        from_value(value).unwrap()
    }

    fn ports(list: &str) -> Vec<String> {
        list.split(',').filter(|p| !p.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn all_tcp_ports_or_those_that_are_named() {
        let all = judge(&service(|_| {}), &[]).unwrap();
        assert_eq!((all.ports, all.annotation), (vec![8080, 9090], None));
        assert_eq!(all.not_carried, ["53/UDP (dns)"]);
        let some = judge(&service(|_| {}), &ports("http,9090")).unwrap();
        assert_eq!((some.ports, some.annotation), (vec![8080, 9090], Some(json!("http,9090"))));
        let error = judge(&service(|_| {}), &ports("grpc")).unwrap_err();
        assert!(error.contains("\"grpc\"") && error.contains("8080 (http), 9090 (metrics)"), "{error}");
        assert!(judge(&service(|_| {}), &ports("dns")).is_err(), "UDP does not cross");
    }

    #[test]
    fn what_was_narrowed_stays_so_unless_all_is_said() {
        let narrowed = service(|s| s["metadata"]["annotations"] = json!({EXPORT_PORTS: "http"}));
        let same = judge(&narrowed, &[]).unwrap();
        assert_eq!((same.ports, same.annotation), (vec![8080], None));
        let all = judge(&narrowed, &ports("all")).unwrap();
        assert_eq!((all.ports, all.annotation), (vec![8080, 9090], Some(Value::Null)));
        let again = judge(&narrowed, &ports("http")).unwrap();
        assert_eq!(again.annotation, None, "a second run changes nothing");
    }

    #[test]
    fn what_would_not_work_is_refused() {
        let refused = |change: fn(&mut Value)| judge(&service(change), &[]).unwrap_err();
        assert!(
            refused(|s| s["metadata"]["labels"] = json!({MIRRORED_SERVICE: "true"}))
                .contains("itself a mirror")
        );
        assert!(refused(|s| s["spec"]["type"] = json!("ExternalName")).contains("ExternalName"));
        assert!(
            refused(|s| s["spec"]["ports"] = json!([{"port": 53, "protocol": "UDP"}]))
                .contains("no TCP port")
        );
        assert!(refused(|s| s["metadata"]["name"] = json!("a".repeat(62))).contains("too long"));
    }

    #[test]
    fn names_that_some_clusters_cannot_mirror_are_told() {
        let long = service(|s| s["metadata"]["name"] = json!("a".repeat(40)));
        let wanted = judge(&long, &[]).unwrap();
        let all = warnings(&long, &wanted, false);
        assert_eq!(all.len(), 3, "{all:?}");
        assert!(all[1].contains("more than 22 characters"), "{all:?}");
        assert!(appears("shop", "my-api", &wanted, Some(1)).contains("my-api-west.shop.svc.cluster.local"));
    }
}
